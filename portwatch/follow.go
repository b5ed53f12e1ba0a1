package portwatch

import (
	"context"
	"maps"
	"runtime"
	"slices"
	"time"

	"github.com/rum-vm/rum-agent/portwatch/events"
	"github.com/rum-vm/rum-agent/portwatch/netevents"
	"golang.org/x/sys/unix"
)

const (
	// safetyInterval is the time between two looks at everything while events tell when
	// to look: for what they cannot know, such as a socket of the kernel that goes.
	safetyInterval = 30 * time.Second
	// ephemeralDelay is how old a UDP socket on a port of the ephemeral range has to
	// be before it is looked at. Clients have such ports, and most are gone by then.
	ephemeralDelay = 100 * time.Millisecond
	// olderPause is the time between two looks at all that is older than the events.
	olderPause = 100 * time.Millisecond
)

// Names of what tells a Watcher when to look.
const (
	// SourceEBPF are programs attached to the root cgroup.
	SourceEBPF = events.EBPF
	// SourceTracepoint is a program at the tracepoint sock:inet_sock_set_state.
	SourceTracepoint = events.Tracepoint
	// SourcePoll is a clock.
	SourcePoll = events.None
)

// bestSources are the sources of events, the best first, perhaps with those of other network
// namespaces.
func bestSources(elsewhere bool) []func() (source, error) {
	return []func() (source, error){
		func() (source, error) { return opened(events.OpenCgroup(events.Options{Elsewhere: elsewhere})) },
		func() (source, error) { return opened(events.OpenTracepoint()) },
	}
}

// opened makes no programs no source.
func opened(p *events.Programs, err error) (source, error) {
	if p == nil {
		return nil, err
	}
	return p, err
}

// source is what tells a follower when to look.
type source interface {
	// Of is where the events of a protocol come from, SourcePoll for nowhere.
	Of(proto string) string
	// Wait appends what has happened to batch, once something has, at the deadline,
	// or when woken. lost says that more has happened than is known.
	Wait(deadline time.Time, batch []events.Event) (_ []events.Event, lost bool, err error)
	// Wake ends a wait, now or the next one.
	Wake()
	// Alive reports whether events can still come.
	Alive() error
	// BindOf says how a UDP socket came to its port.
	BindOf(cookie uint64) events.Bind
	// TellClose asks for an event when a socket goes whose beginning there was none for.
	TellClose(proto string, family uint8, port uint16, cookie uint64)
	Close() error
}

// follower looks where events say that something has happened, and otherwise rarely.
type follower struct {
	w         *Watcher
	src       source
	picture   picture
	ephemeral ephemeral
	told      map[uint64]events.Bind // by cookie: the sockets whose end there will be an event for
	older     map[uint64]place       // of those, TCP listeners older than the events
	olderAt   time.Time              // when to look at all of these next, or when it was
	pending   map[place]*pending
	due       map[string]time.Time // when to look at all of a protocol
	aliveAt   time.Time            // when to ask next whether events can still come
	budget    budget
	turns     turns
	batch     []events.Event
}

func newFollower(w *Watcher, src source) *follower {
	now := time.Now()
	return &follower{
		w: w, src: src, picture: newPicture(w.scanner),
		told: make(map[uint64]events.Bind), older: make(map[uint64]place), pending: make(map[place]*pending),
		due:     map[string]time.Time{"tcp": now, "udp": now},
		aliveAt: now.Add(w.safety), budget: newBudget(lookShare, lookCost, now), turns: newTurns(),
	}
}

// run looks until ctx ends, and returns nil then, or the source of events fails.
func (f *follower) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, f.src.Wake)
	defer stop()
	for {
		if err := f.take(f.next(time.Now())); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
		// Who has used up what there is neither looks nor reads, so that a flood of events
		// is read at once, or for the most part lost, which is a look at everything.
		if wait := min(f.budget.wait(time.Now()), maxPause); wait > 0 {
			if !netevents.Sleep(ctx, wait) {
				return nil
			}
			if err := f.take(time.Now()); err != nil { // what has come meanwhile
				return err
			}
		}
		now := time.Now()
		if now.Before(f.next(now)) {
			continue
		}
		runtime.LockOSThread() // the CPU time is that of a thread
		spent := f.w.cpuTime()
		changed := f.look(now)
		spent = f.w.cpuTime() - spent
		if changed {
			f.budget.spendChange(time.Now(), spent, f.picture.count)
			f.turns.paid(time.Now(), spent, f.picture.count)
		} else {
			f.budget.spend(time.Now(), spent)
		}
		runtime.UnlockOSThread()
	}
}

// next is when the next look is due.
func (f *follower) next(now time.Time) time.Time {
	next := f.due["tcp"]
	if udp := f.due["udp"]; udp.Before(next) {
		next = udp
	}
	for _, p := range f.pending {
		if p.due.Before(next) {
			next = p.due
		}
	}
	return f.turns.next(next, now)
}

// take takes in what happens until a deadline, or nothing but what has happened.
func (f *follower) take(deadline time.Time) error {
	batch, lost, err := f.src.Wait(deadline, f.batch[:0])
	if err != nil {
		return err
	}
	f.batch = batch
	now := time.Now()
	if len(batch) > 0 {
		f.budget.spend(now, wakeCost+time.Duration(len(batch))*eventCost)
	}
	for _, e := range batch {
		if e.Elsewhere || !e.Opened && e.Cookie != 0 && !f.picture.has(e.Cookie) {
			f.w.tellElsewhere()
		}
		if e.Elsewhere {
			continue
		}
		f.note(event{place{e.Proto, e.Family, e.Port}, e.Cookie, e.Opened}, now)
	}
	if lost || f.w.nudged.Swap(false) || len(f.pending) > maxPending {
		clear(f.pending)
		f.due["tcp"], f.due["udp"] = now, now
	}
	if now.Before(f.aliveAt) {
		return nil
	}
	f.aliveAt = now.Add(f.w.safety)
	return f.src.Alive()
}

// note takes in an event.
func (f *follower) note(e event, now time.Time) {
	if f.w.scanner.Own.hasCookie(e.cookie) {
		return
	}
	if e.isTable() {
		f.noteOlder(e, now)
		return
	}
	p := f.pending[e.place]
	if p == nil {
		if e.cookie != 0 && !e.opened && !f.picture.has(e.cookie) {
			delete(f.told, e.cookie)
			return // it was gone before anybody knew of it
		}
		p = &pending{due: now, want: make(map[uint64]bool)}
		if e.proto == "udp" && e.opened && f.ephemeral.has(e.port) {
			p.due = now.Add(ephemeralDelay)
		}
		f.pending[e.place] = p
	}
	p.tries = 0
	switch {
	case e.cookie == 0:
		p.blind = true
	case !e.opened && !f.picture.has(e.cookie):
		delete(p.want, e.cookie)
		delete(f.told, e.cookie)
		if len(p.want) == 0 && !p.blind {
			delete(f.pending, e.place)
		}
	default:
		p.want[e.cookie] = e.opened
		if !e.opened {
			p.due = now
		}
	}
	if e.opened && e.cookie != 0 && e.proto == "tcp" {
		f.told[e.cookie] = events.BindUnknown
	}
}

// noteOlder takes in that some listener of MPTCP has gone, which any Go program has. Of
// one that began under the events there is word besides, so that it is one of the older,
// or none of interest.
func (f *follower) noteOlder(e event, now time.Time) {
	if len(f.older) == 0 {
		return
	}
	pause := olderPause
	if len(f.older) > maxPlaces {
		pause = maxPause
	}
	if !f.olderAt.After(now) {
		f.olderAt = f.olderAt.Add(pause)
	}
	if f.olderAt.Before(now) {
		f.olderAt = now
	}
	if len(f.older) > maxPlaces {
		f.pending[e.place] = &pending{due: f.olderAt, want: make(map[uint64]bool), blind: true}
		return
	}
	for _, at := range f.older {
		if p := f.pending[at]; p == nil {
			f.pending[at] = &pending{due: f.olderAt, want: make(map[uint64]bool), blind: true}
		} else {
			p.blind, p.tries = true, 0
		}
	}
}

// look looks at what is due and shows what it finds. It reports whether
// that has changed anything.
func (f *follower) look(now time.Time) bool {
	f.turns.paying = nil
	a := f.ask(now)
	if len(a.places) == 0 {
		return f.show(now, nil)
	}
	places, gone, come, err := f.picture.look(a.places)
	if err != nil {
		clear(f.pending)
		f.due["tcp"], f.due["udp"] = now.Add(maxPause), now.Add(maxPause)
		return f.w.update(nil, err)
	}
	for _, proto := range a.whole {
		f.due[proto] = now.Add(f.w.safety)
		if f.src.Of(proto) == SourcePoll || f.picture.anonymous(proto) {
			f.due[proto] = now.Add(f.w.interval)
		}
		f.ephemeral = readEphemeral(f.w.scanner.root())
	}
	f.settle(now, slices.Concat(gone, come))
	f.tell(now, places, gone)
	f.w.forget(gone)
	if a.everything || !slices.Equal(places, a.places) {
		f.turns.all(now)
		return f.w.showAll(f.picture.at(wholeTables))
	}
	f.turns.add(gone)
	f.turns.add(come)
	return f.show(now, a.ports)
}

// show shows some ports where nothing has come or gone, and what has elsewhere as far
// as it is its users' turn.
func (f *follower) show(now time.Time, ports []port) bool {
	ports = slices.DeleteFunc(ports, f.turns.waits)
	ports = append(ports, f.turns.take(now)...)
	if len(ports) == 0 {
		return false
	}
	both := make([]place, 0, 2*len(ports))
	for _, p := range ports {
		both = append(both, place{p.proto, unix.AF_INET, p.number}, place{p.proto, unix.AF_INET6, p.number})
	}
	return f.w.show(ports, f.picture.at(both))
}

// tell sees to it that there is an event when a socket goes that was there before the
// events, and learns how those with events came to their ports. It concerns the places
// that were looked at. What goes before it is told of is found by looking once more.
func (f *follower) tell(now time.Time, places []place, gone []socket) {
	for _, s := range gone {
		delete(f.told, s.cookie)
		delete(f.older, s.cookie)
	}
	if slices.ContainsFunc(places, place.isTable) {
		maps.DeleteFunc(f.told, func(cookie uint64, _ events.Bind) bool { return !f.picture.has(cookie) })
		maps.DeleteFunc(f.older, func(cookie uint64, _ place) bool { return !f.picture.has(cookie) })
	}
	var untold []socket
	for at, rows := range f.picture.in(places) {
		if f.src.Of(at.proto) != SourceEBPF {
			continue
		}
		for i := range rows {
			s := &rows[i]
			if s.cookie == 0 {
				continue
			}
			bind, known := f.told[s.cookie]
			if !known && s.proto == "udp" {
				bind = f.src.BindOf(s.cookie)
				known = bind != events.BindUnknown
			}
			if !known {
				f.src.TellClose(s.proto, s.family, s.addr.Port(), s.cookie)
				untold = append(untold, *s)
				if s.proto == "tcp" {
					f.older[s.cookie] = at
				}
			}
			f.told[s.cookie], s.bind = bind, bind
		}
	}
	for _, s := range untold {
		at := s.place()
		switch {
		case len(untold) > maxPlaces:
			f.due[s.proto] = now
		case f.pending[at] == nil:
			f.pending[at] = &pending{due: now, want: make(map[uint64]bool)}
		default:
			f.pending[at].due = now
		}
	}
}
