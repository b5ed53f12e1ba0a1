package install

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rum-vm/rum-agent/agent-host/ask"
	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/cloudinit"
	"github.com/rum-vm/rum-agent/tunnel/builds"
)

// upgradeWait bounds how long a replaced agent may take until it is linked, or the old one is again: that is put back after
// 30 s.
var upgradeWait = 90 * time.Second

// upgradePoll is the time between two looks at that.
const upgradePoll = 200 * time.Millisecond

// Upgrade is which guest agents are to be replaced over their links.
type Upgrade struct {
	VMs     []string // without one, all whose agent is outdated
	Version string   // of this program, and of the guest agents that belong to it
	// Files are guest agents; those that belong to this program where there is none. Where there are some, what an agent is
	// compared by is its content, and else its version.
	Files []string
	// Downgrade: by an older one too.
	Downgrade bool
	JSON      bool
}

// upgraded is what became of a VM's agent.
type upgraded struct {
	VM    string `json:"vm"`
	From  string `json:"from"`
	To    string `json:"to"`
	Error string `json:"error"` // empty for an agent that has that version now
}

// Run replaces the agents of VMs of the agent at a socket, some at a time, and says what became of each as soon as it is known.
// What there is to say meanwhile goes to stderr.
func (o *Upgrade) Run(ctx context.Context, stdout, stderr io.Writer, socket string) error {
	if _, err := Agents(o.Files, nil); err != nil { // whether or not one of them is wanted
		return err
	}
	st, err := ask.Status(ctx, socket, status.Query{Rows: 1})
	if err != nil {
		return err
	}
	vms, err := o.chosen(ctx, st.VMs, socket)
	if err != nil {
		return err
	}
	run := &upgrades{order: o, socket: socket, stdout: stdout, stderr: stderr, all: make([]upgraded, len(vms))}
	if len(vms) > 1 {
		run.stderr = &lockedWriter{w: stderr} // and no terminal with a line that changes
	}
	var group errgroup.Group
	group.SetLimit(atOnce)
	for i, vm := range vms {
		group.Go(func() error {
			if ctx.Err() == nil {
				run.one(ctx, i, vm)
			}
			return nil
		})
	}
	_ = group.Wait() // errors are kept
	all := slices.DeleteFunc(run.all, func(u upgraded) bool { return u.VM == "" })
	if o.JSON {
		if err := writeJSON(stdout, all); err != nil {
			return err
		}
	} else if len(vms) == 0 {
		fmt.Fprintln(stdout, "no guest agent that is linked is outdated")
	}
	switch {
	case len(run.failed) == 0 && len(all) == len(vms):
		return nil
	case len(vms) == 1 && len(run.failed) == 1:
		return run.failed[0]
	}
	return fmt.Errorf("%d of %d guest agents were not upgraded", len(run.failed)+len(vms)-len(all), len(vms))
}

func writeJSON(w io.Writer, all []upgraded) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(struct {
		Upgrades []upgraded `json:"upgrades"`
	}{append([]upgraded{}, all...)})
}

// chosen are the VMs that are meant.
func (o *Upgrade) chosen(ctx context.Context, all []status.VM, socket string) ([]status.VM, error) {
	if len(o.VMs) == 0 {
		return slices.DeleteFunc(all, func(vm status.VM) bool { return builds.Outdated(vm.AgentVersion, o.Version) == "" }), nil
	}
	var vms []status.VM
	for i, name := range o.VMs {
		if slices.Contains(o.VMs[:i], name) {
			continue
		}
		at := slices.IndexFunc(all, func(vm status.VM) bool { return vm.Name == name })
		if at < 0 {
			return nil, ask.NoVM(ctx, socket, name)
		}
		vms = append(vms, all[at])
	}
	return vms, nil
}

// upgrade replaces the agent of a VM and waits until the new one is linked. It returns whether the VM had it already: with
// files, that binary.
func (o *Upgrade) upgrade(ctx context.Context, vm status.VM, stderr, progress io.Writer, socket string) (had bool, err error) {
	if vm.State != status.Connected {
		return false, output.Advise(fmt.Errorf("the guest agent of %s is not linked", vm.Name), "see why with: "+ask.Command(socket, "status", vm.Name))
	}
	if vm.AgentVersion == o.Version && len(o.Files) == 0 {
		return true, nil
	}
	if !o.Downgrade && builds.Older(o.Version, vm.AgentVersion) {
		return false, output.Advise(fmt.Errorf("the guest agent of %s, %s, is newer than %s", vm.Name, vm.AgentVersion, o.Version),
			"install a newer rum-host-agent here, or go back with: "+ask.Command(socket, "upgrade", vm.Name, "--allow-downgrade"))
	}
	agent, err := o.agentFor(ctx, vm)
	if err != nil {
		return false, err
	}
	order := control.Upgrade{Sum: sha256.Sum256(agent.Binary), Size: uint64(len(agent.Binary)), Version: o.Version, Downgrade: o.Downgrade}
	client := control.NewClient(socket)
	began := time.Now()
	err = client.Upgrade(ctx, vm.Name, order, newProgress(progress, len(agent.Binary)).reader(bytes.NewReader(agent.Binary)))
	switch {
	case runsIt(err):
		return true, nil
	case err != nil:
		return false, ask.GuestRefused(ctx, socket, vm.Name, err)
	}
	fmt.Fprintln(stderr, "replaced; waiting until it is linked")
	order.Size = 0 // a question
	return false, o.await(ctx, socket, vm, began, func() bool { return runsIt(client.Upgrade(ctx, vm.Name, order, http.NoBody)) })
}

// runsIt reports whether a guest agent has said that it is the binary that it was to become.
func runsIt(err error) bool {
	refused, ok := errors.AsType[*control.RefusedError](err)
	return ok && refused.Status == http.StatusConflict
}

// agentFor is the guest agent for the machine of a VM. One that does not say which that is does not take it either.
func (o *Upgrade) agentFor(ctx context.Context, vm status.VM) (cloudinit.Agent, error) {
	arch := cmp.Or(vm.AgentArch, runtime.GOARCH)
	agents, err := Agents(o.Files, []string{arch})
	if err != nil {
		return cloudinit.Agent{}, err
	}
	i := slices.IndexFunc(agents, func(a cloudinit.Agent) bool { return a.Arch == arch })
	if i < 0 {
		return cloudinit.Agent{}, fmt.Errorf("%s is a machine of %s, and none of the guest agents is for that", vm.Name, arch)
	}
	return agents[i], sameBuild(ctx, agents[i], o.Version)
}

// await waits until the new agent of a VM is linked. The old one is, if it has been put back. Where both have one version, a
// function asks which of them it is; a link may end meanwhile, so that one no is none.
func (o *Upgrade) await(ctx context.Context, socket string, was status.VM, began time.Time, isNew func() bool) error {
	client := control.NewClient(socket)
	stayed := false      // linked as before: it has not been replaced yet, or never
	var denied time.Time // when the link began over which the agent was not the new one
	for end := time.Now().Add(upgradeWait); time.Now().Before(end); {
		st, err := client.StatusOf(ctx, status.Query{VM: was.Name, Rows: 1})
		if ctx.Err() != nil {
			return errors.New("interrupted; the guest agent is replaced, and the old one comes back if that does not link")
		}
		stayed = false
		if err == nil && len(st.VMs) == 1 && st.VMs[0].State == status.Connected {
			switch vm := st.VMs[0]; {
			case vm.AgentVersion == o.Version && was.AgentVersion != o.Version:
				return nil
			case !vm.Since.After(began):
				stayed = true
			case vm.AgentVersion == o.Version && isNew():
				return nil
			case vm.AgentVersion == o.Version && !vm.Since.Equal(denied):
				denied = vm.Since
			case vm.AgentVersion != was.AgentVersion:
				return fmt.Errorf("the guest agent of %s was replaced, and says that it is %s and not %s", vm.Name, vm.AgentVersion, o.Version)
			default:
				return output.Advise(fmt.Errorf("the new guest agent of %s did not link in time, and %s is back", vm.Name, vm.AgentVersion),
					"see why with: rum-host-agent logs "+was.Name+", or in the VM: journalctl -u rum-guest-agent")
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(upgradePoll):
		}
	}
	if stayed {
		return output.Advise(fmt.Errorf("the guest agent of %s says that it was replaced, and is still %s", was.Name, was.AgentVersion), "see why with: rum-host-agent logs "+was.Name+", or in the VM: journalctl -u rum-guest-agent")
	}
	return output.Advise(fmt.Errorf("the guest agent of %s was replaced, and has not linked within %v", was.Name, upgradeWait), "see why with: "+ask.Command(socket, "status", was.Name))
}
