package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/agent-host/ask"
	"github.com/rum-vm/rum-agent/agent-host/explain"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// maxPorts bounds how many ports of a VM are told of that do not work.
const maxPorts = 10

// bridgeLimit is how long a VM may take to answer at its bridge address.
const bridgeLimit = time.Second

// vms looks at each VM: the link, the guest agent's version, the key, and the ports.
func vms(ctx context.Context, x *exam) (all []status.Check) {
	for _, vm := range x.agent.VMs {
		link := x.link(vm)
		all = append(all, link)
		if link.OK {
			all = append(all, x.ports(vm)...)
			all = append(all, x.guestClock(vm)...)
		} else if vm.BridgeIP != "" && vm.Host == "" {
			all = append(all, bridge(ctx, vm))
		}
		if vm.Warning != "" {
			all = append(all, ill(vm.Name, vm.Warning, "%s", vm.Warning))
		}
	}
	if x.VM != "" && len(x.agent.VMs) == 0 && (x.There == nil || x.agentErr == nil) {
		if x.agentErr == nil && (len(x.agent.Discovery) == 0 || x.There != nil) {
			err := ask.NoVM(ctx, x.Socket, x.VM)
			return append(all, ill(x.VM, hintOf(err), "%v", err))
		}
		all = append(all, x.domain(ctx)...)
	}
	return all
}

// link tells whether the guest agent answers.
func (x *exam) link(vm status.VM) status.Check {
	e := explain.Port(explain.Facts{VM: vm, Now: x.now()})
	for _, s := range e.Steps {
		switch {
		case s.Name != status.StepLink:
		case !s.OK:
			return ill(vm.Name, cmp.Or(e.Remedy, "see what happens with: "+ask.Command(x.Socket, "watch", vm.Name)), "%s", s.Text)
		case vm.Auth == "none":
			return well(vm.Name, "%s; no key is shared, rum-host-agent install %s brings one", s.Text, vm.Name)
		default:
			return well(vm.Name, "%s; the key is proved", s.Text)
		}
	}
	return ill(vm.Name, e.Remedy, "nothing is known of its link")
}

// ports tells of those that should be here and are not, or whose connections failed lately.
func (x *exam) ports(vm status.VM) (all []status.Check) {
	good, more := 0, 0
	for i := range vm.Forwards {
		f := &vm.Forwards[i]
		if f.Reverse || f.State == status.Ignored {
			continue
		}
		e := explain.Port(explain.Facts{VM: vm, Forward: f, Proto: f.Proto, Port: f.Port, Now: x.now()})
		if e.Works {
			good++
			continue
		}
		if len(all) == maxPorts {
			more++
			continue
		}
		for _, s := range e.Steps {
			if !s.OK {
				all = append(all, ill(fmt.Sprintf("%s %d/%s", vm.Name, f.Port, f.Proto), e.Remedy, "%s", s.Text))
				break
			}
		}
	}
	if more > 0 {
		all = append(all, ill(vm.Name, "see them with: "+ask.Command(x.Socket, "status", vm.Name), "%d more ports do not work", more))
	}
	if all == nil {
		all = append(all, well(vm.Name, "ports that work, as far as the agent knows: %d", good))
	}
	return all
}

// bridge tells whether the VM is reached without its agent. A refusal is an answer.
func bridge(ctx context.Context, vm status.VM) status.Check {
	d := net.Dialer{Timeout: bridgeLimit}
	c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(vm.BridgeIP, "22"))
	if err == nil {
		_ = c.Close()
	}
	if err == nil || refused(err) {
		return well(vm.Name, "it answers at its bridge address %s", vm.BridgeIP)
	}
	return ill(vm.Name, "see whether the VM runs, and whether a firewall there or here is between, with: sudo nft list ruleset",
		"it does not answer at its bridge address %s: %v", vm.BridgeIP, err)
}

func refused(err error) bool { return errors.Is(err, unix.ECONNREFUSED) }
