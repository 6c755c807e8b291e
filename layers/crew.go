package layers

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// A crew bounds how many goroutines walk one tree.
type crew struct{ tokens chan struct{} }

// hands is how many goroutines do work that is mostly system calls: two for each core, since some wait for the disk.
func hands() int { return 2 * runtime.GOMAXPROCS(0) }

// newCrew has that many hands, that of the caller included.
func newCrew() crew { return crew{make(chan struct{}, hands()-1)} }

// each calls f for 0 to n-1, in as many goroutines as there are tokens, each of which makes calls until there are none left, and returns when
// all have ended. After an error no more calls begin. f may call each again.
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
	var next atomic.Int64
	var work func()
	work = func() {
		for {
			i := int(next.Add(1)) - 1
			if i >= n || failed() {
				return
			}
			if i < n-1 {
				select {
				case c.tokens <- struct{}{}:
					wg.Go(func() {
						defer func() { <-c.tokens }()
						work()
					})
				default:
				}
			}
			keep(f(i))
		}
	}
	work()
	wg.Wait()
	return first
}
