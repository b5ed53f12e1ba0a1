package portwatch

import (
	"context"
	"maps"
	"runtime"
	"slices"
	"time"

	"github.com/rum-vm/rum-agent/portwatch/cpushare"
	"github.com/rum-vm/rum-agent/portwatch/ephemeral"
	"github.com/rum-vm/rum-agent/portwatch/events"
	"github.com/rum-vm/rum-agent/portwatch/netevents"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
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
	// Wait appends what has happened to batch, once something has that no quiet user has
	// done, at the deadline, or when woken. lost says that more has happened than is known.
	Wait(deadline time.Time, batch []events.Event) (_ []events.Event, lost events.Lost, err error)
	// SetQuiet says whether what a user does ends a Wait.
	SetQuiet(user uint32, quiet bool)
	// Wake ends a wait, now or the next one.
	Wake()
	// Alive reports whether events can still come.
	Alive() error
	// BindOf says how a UDP socket came to its port.
	BindOf(cookie uint64) events.Bind
	// TellClose asks for an event when a socket goes whose beginning there was none for.
	TellClose(proto string, family uint8, port uint16, cookie uint64, user uint32)
	Close() error
}

// follower looks where events say that something has happened, and otherwise rarely.
type follower struct {
	w         *Watcher
	src       source
	picture   picture
	ephemeral ephemeral.Ports
	told      map[uint64]events.Bind // by cookie: the sockets whose end there will be an event for
	older     map[uint64]place       // of those, TCP listeners older than the events
	olderAt   time.Time              // when to look at all of these next, or when it was
	pending   map[place]*pending
	due       map[string]time.Time // when to look at all of a protocol
	aliveAt   time.Time            // when to ask next whether events can still come
	turns     cpushare.Turns
	blamed    map[uint32]int // who pays for the next look at everything: who made it necessary
	batch     []events.Event
}

func newFollower(w *Watcher, src source) *follower {
	now := time.Now()
	return &follower{
		w: w, src: src, picture: newPicture(w.scanner),
		told: make(map[uint64]events.Bind), older: make(map[uint64]place), pending: make(map[place]*pending),
		due:     map[string]time.Time{"tcp": now, "udp": now},
		aliveAt: now.Add(w.safety), turns: cpushare.NewTurns(lookShares, now, src.SetQuiet),
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
		if wait := min(f.turns.Wait(time.Now()), maxPause); wait > 0 {
			if !netevents.Sleep(ctx, wait) {
				return nil
			}
			if err := f.take(time.Now()); err != nil { // what has come meanwhile
				return err
			}
		}
		if now := time.Now(); !now.Before(f.next(now)) {
			f.lookAndPay(now)
		}
		f.turns.Pay(time.Now())
	}
}

// lookAndPay looks at what is due.
func (f *follower) lookAndPay(now time.Time) {
	runtime.LockOSThread() // the CPU time is that of a thread
	defer runtime.UnlockOSThread()
	spent := f.w.cpuTime()
	changed, users := f.look(now)
	spent = f.w.cpuTime() - spent
	f.w.lookTook.Store(int64(spent))
	if changed {
		spent = costOfChange(spent, f.picture.count)
	}
	f.turns.Share(time.Now(), spent, users)
}

// next is when the next look is due, or a quiet user's turn.
func (f *follower) next(now time.Time) time.Time {
	next := f.turns.Next(f.due["tcp"], now)
	if udp := f.due["udp"]; udp.Before(next) {
		next = udp
	}
	for _, p := range f.pending {
		if due := f.turns.Of(p.users, p.due, now); due.Before(next) {
			next = due
		}
	}
	return next
}

// take takes in what happens until a deadline, or nothing but what has happened.
func (f *follower) take(deadline time.Time) error {
	batch, lost, err := f.src.Wait(deadline, f.batch[:0])
	if err != nil {
		return err
	}
	f.batch = batch
	now := time.Now()
	if lost.Any {
		f.blamed = most(batch)
	}
	for i, e := range batch {
		if i == 0 {
			f.turns.Owe(now, wakeCost, e.User)
		}
		f.turns.Owe(now, eventCost, e.User)
		if e.Elsewhere || !e.Opened && e.Cookie != 0 && !f.picture.has(e.Cookie) {
			f.w.tellElsewhere()
		}
		if e.Elsewhere {
			continue
		}
		f.note(event{place{e.Proto, e.Family, e.Port}, e.Cookie, e.Opened, e.User}, now)
	}
	if lost.OfQuiet {
		for user := range f.turns.Quiet() {
			f.noteAll("tcp", user, now)
			f.noteAll("udp", user, now)
		}
	}
	if lost.Any || f.w.nudged.Swap(false) || len(f.pending) > maxPending {
		clear(f.pending)
		f.due["tcp"], f.due["udp"] = now, now
	}
	if now.Before(f.aliveAt) {
		return nil
	}
	f.aliveAt = now.Add(f.w.safety)
	return f.src.Alive()
}

// most is who has done most of what has happened.
func most(batch []events.Event) map[uint32]int {
	done, by := make(map[uint32]int), events.NoUser
	for _, e := range batch {
		if done[e.User]++; done[e.User] > done[by] {
			by = e.User
		}
	}
	return map[uint32]int{by: 1}
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
	known := f.picture.has(e.cookie)
	if f.picture.procfs { // which tells no cookies
		e.cookie, known = 0, len(f.picture.rows[e.place]) > 0
	}
	if e.user == events.NoUser {
		e.user = f.picture.user(e)
	}
	p := f.pending[e.place]
	if p == nil {
		if !e.opened && !known && (e.cookie != 0 || f.picture.procfs) {
			delete(f.told, e.cookie)
			return // it was gone before anybody knew of it
		}
		if f.crowded(e.user) {
			f.noteAll(e.proto, e.user, now)
			return
		}
		p = f.await(e.place, now)
		if e.proto == "udp" && e.opened && f.ephemeral.Has(e.port) {
			p.due = now.Add(ephemeralDelay)
		}
	}
	p.tries = 0
	p.by(e.user)
	switch {
	case e.cookie == 0:
		p.blind = true
	case !e.opened && !known:
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

// await is what a place waits for, from a time on if it does not wait yet.
func (f *follower) await(at place, due time.Time) *pending {
	p := f.pending[at]
	if p == nil {
		p = &pending{due: due, want: make(map[uint64]bool)}
		f.pending[at] = p
	}
	return p
}

// crowded reports whether as many places wait for a user as may.
func (f *follower) crowded(user uint32) bool {
	if len(f.pending) < maxPlacesOfUser {
		return false
	}
	n := 0
	for _, p := range f.pending {
		if slices.Contains(p.users, user) {
			n++
		}
	}
	return n >= maxPlacesOfUser
}

// noteAll takes in that a user has changed more of a protocol than is known.
func (f *follower) noteAll(proto string, user uint32, now time.Time) {
	for _, at := range tables(proto) {
		p := f.await(at, now)
		p.blind, p.tries = true, 0
		p.by(user)
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
		f.pending[e.place] = &pending{due: f.olderAt, want: make(map[uint64]bool), blind: true, users: []uint32{e.user}}
		return
	}
	for _, at := range f.older {
		p := f.await(at, f.olderAt)
		p.blind, p.tries = true, 0
		p.by(e.user)
	}
}

// look looks at what is due and shows what it finds. It reports whether that has changed
// anything, and for how many ports of which users it was.
func (f *follower) look(now time.Time) (changed bool, users map[uint32]int) {
	a := f.ask(now)
	if len(a.places) == 0 {
		return false, nil
	}
	places, gone, come, err := f.picture.look(a.places, f.pending)
	if err != nil {
		clear(f.pending)
		f.due["tcp"], f.due["udp"] = now.Add(maxPause), now.Add(maxPause)
		return f.w.update(nil, err), nil
	}
	for _, proto := range a.whole {
		f.due[proto] = now.Add(f.w.safety)
		if f.src.Of(proto) == SourcePoll || f.picture.anonymous(proto) {
			f.due[proto] = now.Add(f.w.interval)
		}
	}
	if len(a.whole) > 0 {
		f.ephemeral = ephemeral.Read(f.w.scanner.root())
	}
	different := slices.Concat(gone, come)
	f.settle(now, different)
	f.tell(now, places, gone)
	f.w.forget(gone)
	for _, s := range different {
		a.add(s.both(), portlist.UserOf(s.uid))
	}
	if !slices.Equal(places, a.places) {
		return f.w.showAll(f.picture.at(wholeTables)), a.users
	}
	if a.everything {
		f.turns.Forget(now)
		users, f.blamed = f.blamed, nil
		return f.w.showAll(f.picture.at(wholeTables)), users
	}
	return f.show(a.ports), a.users
}

// show shows some ports anew.
func (f *follower) show(ports []port) bool {
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
				f.src.TellClose(s.proto, s.family, s.addr.Port(), s.cookie, portlist.UserOf(s.uid))
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
			f.noteAll(s.proto, portlist.UserOf(s.uid), now)
		case f.pending[at] == nil:
			f.pending[at] = &pending{due: now, want: make(map[uint64]bool), users: []uint32{portlist.UserOf(s.uid)}}
		default:
			f.pending[at].due = now
		}
	}
}
