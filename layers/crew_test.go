package layers

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestWaitingHands: who waits for a part of the tree leaves its hand to those who work on it, and no more than all hands ever work.
func TestWaitingHands(t *testing.T) {
	c := newCrew()
	var began, ended, met sync.WaitGroup
	var now, most atomic.Int32
	began.Add(1)
	ended.Add(1)
	met.Add(hands())
	err := c.each(2, func(i int) error {
		if i == 0 { // the caller's own, who waits afterwards
			began.Wait()
			ended.Done()
			return nil
		}
		began.Done()
		ended.Wait()
		time.Sleep(10 * time.Millisecond)
		return c.each(4*hands(), func(i int) error {
			for n, m := now.Add(1), most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			defer now.Add(-1)
			if i < hands() {
				met.Done()
			}
			all := make(chan struct{})
			go func() { met.Wait(); close(all) }()
			select {
			case <-all:
			case <-time.After(5 * time.Second):
				t.Errorf("only %d at work", now.Load())
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	if most.Load() > int32(hands()) {
		t.Errorf("%d at work, of %d hands", most.Load(), hands())
	}
}
