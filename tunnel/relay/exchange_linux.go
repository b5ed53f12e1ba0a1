package relay

import "golang.org/x/sys/unix"

// exchangeTurns is how many messages an exchange goes on for without a look at
// what else there is to do.
const exchangeTurns = 16

// exchange carries the messages that follow one another on a connection, as long as
// they do, without asking the kernel which has one: a message is followed by its
// answer. ev is what came last, and has been handled.
func (l *loop) exchange(ev unix.EpollEvent) {
	if !l.waiter.brief() || l.waiter.crowd() {
		return
	}
	p, ok := l.of(ev).(*Pair)
	if !ok {
		return
	}
	asked := 1 - int(ev.Fd&1) // the side that has got the last message
	for range exchangeTurns {
		from := -1
		// A program that is woken on this processor often runs, and answers,
		// before the write to it returns. The other agent runs when we yield.
		if p.sides[asked].stream == nil {
			from = p.glance(asked)
		}
		if from < 0 {
			l.waiter.letOthersRun()
			from = p.glance(asked)
		}
		if from < 0 {
			return
		}
		asked = 1 - from
	}
}

// glance moves what has come on the first side, or else on the other, before the
// kernel has told of it, and reports which side that was: -1 is neither.
func (p *Pair) glance(first int) (side int) {
	side = -1
	p.update(func() {
		for _, from := range [2]int{first, 1 - first} {
			in := &p.halves[from]
			if !p.over && in.reads() && !in.bulk && p.pump(from) {
				side = from
				break
			}
		}
		p.rearm()
	})
	return side
}
