package openurl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/events"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

const (
	// askedFor is how long the user has to answer.
	askedFor = 5 * time.Minute
	// maxAsked of a VM, maxAskedOfUser of a user there, and maxAskedOfAll wait for an answer.
	maxAsked       = 8
	maxAskedOfUser = 4
	maxAskedOfAll  = 64
)

// Config is what an [Opener] needs.
type Config struct {
	// Setting is what a VM may do: one of "no", "ask" and "yes".
	Setting func(vm string) string
	// VMs tells of VMs and their forwards, with the URLs of their names.
	VMs func(status.Query) iter.Seq[status.VM]
	// AddForward, RemoveForward and Forwards are those of the rules that commands add.
	AddForward    func(vm, ports, proto string, hold time.Duration) (status.Added, error)
	RemoveForward func(vm, ports, proto string) (status.Added, error)
	Forwards      func(vm string) ([]status.Added, error)
	// Vacant reports whether nobody listens at an address of this host; nil to try it.
	Vacant func(netip.AddrPort) bool
	// Addresses are those that this host has now; nil for those of its interfaces.
	Addresses func() ([]netip.Addr, error)
	// Ready is why no browser can be opened; nil if one can.
	Ready func() error
	// Open opens a browser, and calls done when nothing that it has started runs any more.
	Open func(ctx context.Context, url string, done func()) error
	// Notify asks the user on the desktop until ctx ends, and reports what he said; not decided where he said
	// nothing, or there is no way to ask.
	Notify func(ctx context.Context, title, text string) (accept, decided bool)
	Events *events.History
	Log    *slog.Logger
}

// Opener decides about URLs of all VMs. Run has to run while it is used.
type Opener struct {
	Config

	mu    sync.Mutex
	ctx   context.Context // of Run; nil before it
	wg    sync.WaitGroup
	vms   map[string]*ofVM
	until map[int64]time.Time // when forwards end, by when they were added (Unix, in nanoseconds)
	asked []*asked            // the oldest first
	last  uint64              // id of one
}

// ofVM is what there is of a VM.
type ofVM struct {
	users users
	turn  chan struct{} // has a token while ports are brought out or taken back
	ports map[uint16]*brought
}

// asked is a URL that waits for the user's answer.
type asked struct {
	status.Request
	user    uint32
	target  *target
	cancel  context.CancelFunc // of its notification
	opening bool               // the user has said so; it has its place until it is known what became of it
}

// New returns an opener that refuses everything before it runs.
func New(c Config) *Opener {
	if c.Vacant == nil {
		c.Vacant = vacant
	}
	if c.Addresses == nil {
		c.Addresses = addressesOfInterfaces
	}
	return &Opener{Config: c, vms: make(map[string]*ofVM), until: make(map[int64]time.Time)}
}

// Run lasts until ctx ends, and takes everything back then.
func (o *Opener) Run(ctx context.Context) error {
	o.mu.Lock()
	o.ctx = ctx
	o.mu.Unlock()
	<-ctx.Done()
	o.mu.Lock()
	o.ctx = nil
	o.mu.Unlock()
	o.wg.Wait()
	return nil
}

// of needs o.mu.
func (o *Opener) of(vm string) *ofVM {
	v := o.vms[vm]
	if v == nil {
		v = &ofVM{users: newUsers(), turn: make(chan struct{}, 1), ports: make(map[uint16]*brought)}
		o.vms[vm] = v
	}
	return v
}

// spawn runs f unless the opener has ended.
func (o *Opener) spawn(f func(ctx context.Context)) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ctx == nil {
		return false
	}
	ctx := o.ctx
	o.wg.Go(func() { f(ctx) })
	return true
}

// refusal is why something is not opened, for the guest too: it tells nothing else of the host.
type refusal struct {
	outcome wire.OpenOutcome
	text    string
}

func (r *refusal) Error() string { return r.text }

func refuse(format string, args ...any) error {
	return &refusal{wire.OpenRefused, fmt.Sprintf(format, args...)}
}

var errEnding = refuse("the host agent is ending")

const notAllowed = `the host opens no pages for this VM; its rum.toml allows it there: [[vm]], open_urls = "ask"`

func allows(setting string) bool { return setting == "ask" || setting == "yes" }

// Ask decides about a URL that a user of a VM wants opened, and tells it the answer. It does not wait.
func (o *Opener) Ask(vm string, user uint32, url string, answer func(wire.OpenOutcome, string)) {
	o.mu.Lock()
	u := &o.of(vm).users
	err := u.begin(user)
	o.mu.Unlock()
	if err != nil {
		answer(wire.OpenRefused, err.Error())
		return
	}
	end := func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		u.end(user)
	}
	ran := o.spawn(func(ctx context.Context) {
		defer end()
		setting := o.Setting(vm) // which waits while rules are changed
		if !allows(setting) {
			answer(wire.OpenNotAllowed, notAllowed)
			return
		}
		answer(o.decide(ctx, vm, user, url, setting == "yes"))
	})
	if !ran {
		end()
		answer(wire.OpenRefused, errEnding.Error())
	}
}

// decide opens a URL, or has the user asked.
func (o *Opener) decide(ctx context.Context, vm string, user uint32, url string, yes bool) (wire.OpenOutcome, string) {
	log := o.Log.With("vm", vm)
	t, err := o.parse(url)
	if err == nil {
		log = log.With("host", t.host)
		if err = o.Ready(); err == nil {
			err = o.check(ctx, vm, t)
		}
	}
	if err == nil && yes && t.place == internet {
		if err = o.open(ctx, vm, t); err == nil {
			o.tell(events.PageOpened, vm, t)
			log.Info("a page is opened for the VM")
			return wire.OpenOpened, t.host
		}
	}
	if err != nil {
		log.Warn("no page is opened for the VM", "error", err)
		if r, ok := errors.AsType[*refusal](err); ok {
			return r.outcome, r.text
		}
		return wire.OpenRefused, err.Error()
	}
	ports, err := o.portsFor(vm, t)
	if err == nil {
		err = o.ask(vm, user, t, ports)
	}
	if err != nil {
		log.Warn("nobody is asked about a page for the VM", "error", err)
		return wire.OpenRefused, err.Error()
	}
	log.Info("the user is asked about a page for the VM")
	return wire.OpenAsked, t.host
}

// parse reads a URL as what it is on this host now.
func (o *Opener) parse(url string) (*target, error) {
	addrs, err := o.Addresses()
	if err != nil {
		o.Log.Warn("the addresses of this host are not known", "error", err)
		return nil, refuse("the host agent cannot find out where the page is")
	}
	return parse(url, lookAtThisHost(addrs))
}

// open has a browser opened, and what that comes back to brought out before.
func (o *Opener) open(ctx context.Context, vm string, t *target) (err error) {
	ports, err := o.portsFor(vm, t)
	if err != nil {
		return err
	}
	if t.place == loopback && !o.isOwn(vm, t) && !slices.Contains(ports, t.port) {
		ports = append(ports, t.port)
	}
	var added []*brought
	defer func() {
		if err != nil {
			o.abandon(vm, added)
		}
	}()
	for _, port := range ports {
		b, err := o.bringOut(ctx, vm, port)
		if err != nil {
			return err
		}
		if b != nil {
			added = append(added, b)
		}
	}
	o.mu.Lock()
	run := o.ctx
	if run != nil {
		o.wg.Add(1)
	}
	o.mu.Unlock()
	if run == nil {
		return errEnding
	}
	if err := o.Open(run, t.text, o.wg.Done); err != nil {
		return refuse("the host's browser does not open: %v", err)
	}
	return nil
}

// tell publishes what became of a page. Its host alone is told, as its URL may be a secret.
func (o *Opener) tell(kind, vm string, t *target) {
	o.Events.Publish(events.Event{Kind: kind, VM: vm, Words: t.host})
}

// ask puts a URL to the user, with the ports that are brought out for it. One that is there already is not asked about twice.
func (o *Opener) ask(vm string, user uint32, t *target, ports []uint16) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.expire()
	for _, a := range o.asked {
		if a.VM == vm && a.target.text == t.text {
			return nil
		}
	}
	if o.ctx == nil {
		return errEnding
	}
	if err := o.makeRoom(vm, user); err != nil {
		return err
	}
	o.last++
	now := time.Now()
	a := &asked{user: user, target: t, Request: status.Request{
		ID: strconv.FormatUint(o.last, 10), VM: vm, URL: t.text, Host: t.host, Callbacks: ports, AskedAt: now, EndsAt: now.Add(askedFor),
	}}
	switch t.place {
	case loopback:
		a.Place = "this host"
	case local:
		a.Place = "the local network"
	}
	ctx, cancel := context.WithTimeout(o.ctx, askedFor)
	a.cancel = cancel
	o.asked = append(o.asked, a)
	o.tell(events.PageAsked, vm, t)
	o.wg.Go(func() {
		accept, decided := o.Notify(ctx, fmt.Sprintf("%s asks to open a page", vm), a.describe())
		if decided {
			_ = o.Answer(context.WithoutCancel(ctx), a.ID, accept) // an error is logged
			return
		}
		<-ctx.Done()
		o.mu.Lock()
		defer o.mu.Unlock()
		o.expire()
	})
	return nil
}

// makeRoom has a place for one more URL of a user: where the VM has none left, the user with the most loses his oldest
// to one who has fewer with it. It needs o.mu.
func (o *Opener) makeRoom(vm string, user uint32) error {
	count, of := 0, make(map[uint32]int)
	for _, a := range o.asked {
		if a.VM == vm {
			count++
			of[a.user]++
		}
	}
	if of[user] < maxAskedOfUser && count < maxAsked && len(o.asked) < maxAskedOfAll {
		return nil
	}
	oldest := -1
	for i, a := range o.asked {
		if a.VM == vm && !a.opening && of[a.user] > of[user]+1 && (oldest < 0 || of[a.user] > of[o.asked[oldest].user]) {
			oldest = i
		}
	}
	if of[user] >= maxAskedOfUser || oldest < 0 {
		return fmt.Errorf("%d pages wait for an answer already", count)
	}
	a := o.asked[oldest]
	o.asked = slices.Delete(o.asked, oldest, oldest+1)
	a.cancel()
	o.Log.Warn("a page of a user with many makes room for another user's", "vm", vm, "host", a.Host)
	o.tell(events.PageRefused, vm, a.target)
	return nil
}

// describe is the text of a notification. It has no more of a URL than where it leads, since every user of this host can
// read it in the command line of what shows it, and the rest may be a secret.
func (a *asked) describe() string {
	text := "On " + a.Host + ": " + a.target.origin() + "\nThe whole URL is on the page of the agent: rum-host-agent dashboard"
	if a.Place != "" {
		text += "\nThat is on " + a.Place + "."
	}
	return text
}

// expire needs o.mu.
func (o *Opener) expire() {
	o.asked = slices.DeleteFunc(o.asked, func(a *asked) bool {
		over := !time.Now().Before(a.EndsAt)
		if over {
			a.cancel()
		}
		return over
	})
}

// Requests are the URLs that wait for an answer, the oldest first.
func (o *Opener) Requests() []status.Request {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.expire()
	all := []status.Request{}
	for _, a := range o.asked {
		if !a.opening {
			all = append(all, a.Request)
		}
	}
	return all
}

// goneError says that an answer came too late.
type goneError struct{}

func (goneError) Error() string { return "nothing waits for this answer any more" }
func (goneError) Unwrap() error { return fs.ErrNotExist }

// Answer is the user's. The error wraps [fs.ErrNotExist] where the URL does not wait for it any more, and else is why
// nothing could be opened, after which it waits on, unless the VM may have nothing opened any more.
func (o *Opener) Answer(ctx context.Context, id string, accept bool) error {
	o.mu.Lock()
	o.expire()
	i := slices.IndexFunc(o.asked, func(a *asked) bool { return a.ID == id && !a.opening })
	if i < 0 {
		o.mu.Unlock()
		return goneError{}
	}
	a := o.asked[i]
	a.opening = true
	o.mu.Unlock()
	a.cancel()
	log := o.Log.With("vm", a.VM, "host", a.Host)
	if !accept {
		o.answered(a)
		log.Info("the user refused a page of the VM")
		o.tell(events.PageRefused, a.VM, a.target)
		return nil
	}
	// Since it was asked about, rules and ports may be others.
	if !allows(o.Setting(a.VM)) {
		o.answered(a)
		log.Warn("no page is opened for the VM", "error", notAllowed)
		o.tell(events.PageRefused, a.VM, a.target)
		return refuse(notAllowed)
	}
	err := o.check(ctx, a.VM, a.target)
	if err == nil {
		err = o.open(ctx, a.VM, a.target)
	}
	if err != nil {
		log.Warn("a page is not opened for the VM yet", "error", err)
		o.mu.Lock()
		defer o.mu.Unlock()
		a.opening = false
		return err
	}
	o.answered(a)
	log.Info("a page is opened for the VM, as the user said")
	o.tell(events.PageOpened, a.VM, a.target)
	return nil
}

// answered has something wait no more.
func (o *Opener) answered(a *asked) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked = slices.DeleteFunc(o.asked, func(other *asked) bool { return other == a })
}
