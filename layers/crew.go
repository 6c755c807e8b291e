package layers

import (
	"runtime"
	"sync"
)

// A crew bounds how many goroutines walk one tree.
type crew struct{ tokens chan struct{} }

// hands is how many goroutines do work that is mostly system calls: two for each core, since some wait for the disk.
func hands() int { return 2 * runtime.GOMAXPROCS(0) }

// newCrew has that many hands, that of the caller included.
func newCrew() crew { return crew{make(chan struct{}, hands()-1)} }

// each calls f for 0 to n-1, in goroutines as far as there are tokens and else itself, and returns when all have ended. After an
// error no more calls begin. f may call each again.
func (c crew) each(n int, f func(i int) error) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var first error
	keep := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if first == nil {
			first = err
		}
	}
	failed := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return first != nil
	}
	for i := 0; i < n && !failed(); i++ {
		if i == n-1 { // the caller would only wait
			keep(f(i))
			break
		}
		select {
		case c.tokens <- struct{}{}:
			wg.Go(func() {
				defer func() { <-c.tokens }()
				keep(f(i))
			})
		default:
			keep(f(i))
		}
	}
	wg.Wait()
	return first
}
