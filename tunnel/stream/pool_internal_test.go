package stream

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestAPoolIsClosedWhenNoStreamIsOpenedForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(nil, nil)
		near, far := socketPair(t)
		wantOpen := func(want bool) {
			t.Helper()
			synctest.Wait()
			if isClosed(far) == want {
				t.Fatalf("the connection is open: %v, want %v", !want, want)
			}
		}
		p.Put(Carrier{raw: near})
		time.Sleep(poolIdle * 3 / 4)
		wantOpen(true)
		raw, ok := p.Take()
		if !ok {
			t.Fatal("there is none")
		}
		p.Put(raw) // after its stream
		time.Sleep(poolIdle * 3 / 4)
		wantOpen(true)
		time.Sleep(poolIdle)
		wantOpen(false)

		near, far = socketPair(t)
		p.Put(Carrier{raw: near}) // after a stream that has lasted
		time.Sleep(2 * poolIdle)
		wantOpen(false)

		near, far = socketPair(t)
		p.Put(Carrier{raw: near})
		p.Close()
		wantOpen(false)
	})
}
