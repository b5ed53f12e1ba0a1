package hostagent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"
	"time"

	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/packagers"
	"github.com/rum-vm/rum-agent/tunnel/stream"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// serviceTimeout bounds how long a guest agent may take to say whether it does what it is asked for itself. Of an upgrade it
// asks its system's packages first.
const serviceTimeout = 20 * time.Second

// GuestLog opens the last lines of the log of a VM's guest agent, and with follow those that come later. They are as the
// guest sends them. The error wraps [fs.ErrNotExist] where there is no such VM; where its text has a second line, that is what to do.
func (a *Agent) GuestLog(ctx context.Context, vm string, lines uint32, follow bool) (io.ReadCloser, error) {
	return a.askGuest(ctx, vm, wire.LogRequest{Lines: lines, Follow: follow}.Target())
}

// upgradeTimeout bounds how long a binary may take on its way into a VM and there.
const upgradeTimeout = 15 * time.Minute

// upgradeSilence bounds how long a guest agent may take nothing of a binary, and say nothing after the last of it, which may
// still be on its way then: links have buffers.
var upgradeSilence = time.Minute

// errUnchanged is the error of an order whose outcome is there already. It wraps [fs.ErrExist].
var errUnchanged = fmt.Errorf("that binary runs already: %w", fs.ErrExist)

// UpgradeGuest has a VM's guest agent put a binary in its own place and start it. It returns when that begins. Errors are as
// those of [Agent.GuestLog]; one that wraps [fs.ErrExist] says that the agent is that binary already. Of a size of 0 nothing
// is asked but that.
func (a *Agent) UpgradeGuest(ctx context.Context, vm string, u wire.UpgradeRequest, binary io.Reader) error {
	ctx, cancel := context.WithTimeout(ctx, upgradeTimeout)
	defer cancel()
	if _, under := a.upgrading.LoadOrStore(vm, true); under {
		return advised(fmt.Sprintf("the guest agent of %s is being upgraded already", vm), "see what becomes of it with: rum-host-agent status "+vm)
	}
	defer a.upgrading.Delete(vm)
	s, err := a.askGuest(ctx, vm, u.Target())
	if err != nil {
		return err
	}
	defer s.Close()
	stop := context.AfterFunc(ctx, s.Abort)
	defer stop()
	silent := time.AfterFunc(upgradeSilence, func() {
		s.Fail(fmt.Errorf("its agent neither took anything nor answered for %v", upgradeSilence))
	})
	defer silent.Stop()
	n, err := io.Copy(s, io.TeeReader(binary, postponed{silent}))
	if err == nil && uint64(n) != u.Size {
		err = fmt.Errorf("%d bytes were given of %d", n, u.Size)
	}
	if err != nil {
		_ = s.CloseWrite() // so that the guest waits for no more, and says what it knows
	}
	var answer wire.AnswerReader
	said := answer.Read(s)
	if refused, ok := errors.AsType[*wire.AnswerError](said); ok {
		return fmt.Errorf("the guest agent of %s refuses: %s", vm, refused.Reason)
	}
	if err == nil {
		err = said
	}
	if endedEarly(err) {
		return lostMeanwhile(vm)
	}
	if err != nil {
		return fmt.Errorf("send the binary to %s: %w", vm, err)
	}
	a.cfg.Log.Info("the guest agent was replaced, and starts anew", "vm", vm, "version", u.Version)
	return nil
}

// postponed has a timer begin again with each write.
type postponed struct{ *time.Timer }

func (p postponed) Write(b []byte) (int, error) {
	p.Reset(upgradeSilence)
	return len(b), nil
}

// endedEarly reports whether a stream has ended as it does where its guest agent or its link ends: before the answer, or
// while it is written to.
func endedEarly(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrUnexpectedEOF)
}

// askGuest opens a stream to what a VM's guest agent does itself, which has said that it does.
func (a *Agent) askGuest(ctx context.Context, vm string, t wire.Target) (*stream.Stream, error) {
	a.mu.Lock()
	v := a.find(vm)
	a.mu.Unlock()
	if v == nil {
		return nil, a.noVM(vm)
	}
	v.mu.Lock()
	link := v.link
	v.mu.Unlock()
	if err := v.servesItself(link); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, serviceTimeout)
	defer cancel()
	s, err := link.Open(ctx, t, nil)
	opened := err == nil
	if opened {
		err = s.Answer(ctx)
	}
	if !opened || endedEarly(err) {
		err = lostMeanwhile(v.Name)
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("the guest agent of %s does not answer", v.Name)
	}
	if refused, ok := errors.AsType[*wire.AnswerError](err); ok {
		err = fmt.Errorf("the guest agent of %s refuses: %s", v.Name, refused.Reason)
		if refused.Status == wire.AnswerUnchanged {
			err = errUnchanged
		}
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// lostMeanwhile is the error of a guest agent that was asked for something when its link ended.
func lostMeanwhile(vm string) error {
	return advised(fmt.Sprintf("the link to %s was lost meanwhile: its guest agent has ended or starts anew", vm), "see whether it is back with: rum-host-agent status "+vm)
}

// servesItself says why the guest agent behind a link cannot be asked for something of its own; nil is no link.
func (v *vm) servesItself(link *tunnel.Link) error {
	if link == nil || link.Silent() {
		return advised(fmt.Sprintf("the guest agent of %s does not answer", v.Name), "see why with: rum-host-agent status "+v.Name)
	}
	install := "rum-host-agent install " + v.Name
	switch peer := link.Peer(); {
	case !peer.ServesItself:
		return advised(fmt.Sprintf("the guest agent of %s, %s, is older and does not know that yet", v.Name, peer.AgentVersion), "replace it with: "+install)
	case peer.Auth == "none":
		return advised(fmt.Sprintf("%s has no key, and without one its guest agent connects to ports and does no more", v.Name), "give it one with: "+install)
	}
	return nil
}

// replacing says how another guest agent gets in the place of one that has said this of itself.
func (v *vm) replacing(p tunnel.Peer) string {
	command := "install"
	if p.ServesItself && p.Auth != "none" {
		command = "upgrade"
	}
	if there := packagers.Upgrading(p.Packager); there != "" {
		return "upgrade its package in the VM, with: " + there
	}
	return "replace it with a newer seed image, or with: rum-host-agent " + command + " " + v.Name
}

func advised(what, remedy string) error { return errors.New(what + "\n" + remedy) }
