package hostagent

import (
	"fmt"
	"sync"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/events"
)

// life is whether a VM is up, as it was published last. Its lock is held for a moment, and
// nothing else is locked meanwhile.
type life struct {
	vm     string
	events *events.History

	mu    sync.Mutex
	up    bool
	lived bool      // it has been up
	since time.Time // of that
	words string    // why it is not
}

// isUp tells that the guest agent answers, or does again.
func (l *life) isUp(words string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.up {
		l.lived = true
		l.change(true, words)
	}
}

// isDown tells why it does not: once for each time that it goes, and of what never came each reason once. Later
// reasons say what follows from that, but those for which somebody has to do something.
func (l *life) isDown(words string, remediable bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.up || l.words != words && (!l.lived || remediable) {
		l.change(false, words)
	}
}

// change needs l.mu.
func (l *life) change(up bool, words string) {
	e := events.Event{Kind: events.VMDown, VM: l.vm, Words: words}
	if up {
		e.Kind = events.VMUp
	}
	if l.up != up {
		now := time.Now()
		e.AfterSeconds = now.Sub(l.since).Seconds()
		l.up, l.since = up, now
	}
	l.words = words
	l.events.Publish(e)
}

// at is since when it is up or down.
func (l *life) at() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.since
}

// silence tells that the guest gives no sign of life over a link that stands, or does again. It
// is called with the VM's lock held.
func (v *vm) silence(silent bool) {
	bridge := v.forwards.Bridge()
	path := func(from, to any) {
		if bridge.IsValid() {
			v.cfg.Events.Publish(events.Event{Kind: events.PathChanged, VM: v.Name, Words: fmt.Sprintf("from %v to %v", from, to)})
		}
	}
	if silent {
		v.life.isDown("it gives no sign of life, and may be paused; its connections stay", false)
		path(v.path(), "bridge")
		return
	}
	v.life.isUp("it gives signs of life again")
	path("bridge", v.path())
}

// outdatedAgent tells of a guest agent that is older than this host agent, or of another build.
func (v *vm) outdatedAgent(how, version string) {
	v.log.Warn("the guest agent is "+how+" this host agent", "agent", version, "host", v.cfg.Version)
	v.cfg.Events.Publish(events.Event{Kind: events.AgentOutdated, VM: v.Name,
		Words: fmt.Sprintf("the guest agent %s is %s this host agent, %s", version, how, v.cfg.Version)})
}
