package vm

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Config is a guest to start. Without [Config.Boot] it runs the cached kernel
// with an initramfs made from [Config.Guest].
type Config struct {
	// Guest is what the initramfs holds.
	Guest Initramfs
	// Boot replaces kernel and initramfs, for a guest with a disk of its own.
	Boot *Boot
	// Memory in MiB; 256 when zero.
	Memory int
	// CPUs is the number of virtual CPUs; 1 when zero.
	CPUs int
	// SerialSocket is the unix socket that QEMU makes for [AgentPort]; in a
	// directory of the VM's own when empty.
	SerialSocket string
	// CID gives the guest a vhost-vsock device; none when zero. It needs
	// [HasVsock].
	CID uint32
	// Nets are the guest's network cards; none when empty.
	Nets []Net
	// Disks are the guest's virtio disks, vda first.
	Disks []Disk
	// QEMUArgs are further arguments, last on QEMU's command line.
	QEMUArgs []string
}

// Boot is a kernel to boot that is not the cached one.
type Boot struct {
	// Kernel and Initrd are paths, Append is the kernel's command line.
	Kernel, Initrd, Append string
}

// Net is a virtio network card.
type Net struct {
	// Backend is QEMU's -netdev value without an id, such as
	// "tap,ifname=tap0,script=no" or "user,restrict=on".
	Backend string
	// MAC address; QEMU's choice when empty.
	MAC string
}

// Disk is a virtio disk.
type Disk struct {
	// Path of the image and its Format, raw when empty.
	Path, Format string
	// ReadOnly makes it so for the guest; Snapshot lets the guest write, and
	// forgets what it wrote.
	ReadOnly, Snapshot bool
}

// VM is a running guest. Its methods may be called concurrently.
type VM struct {
	dir    string
	socket string
	qemu   *os.Process
	shell  *shell
	ended  chan struct{}
	err    error // why it ended; valid once ended is closed
}

// ErrEnded is in the chain of errors about a guest whose QEMU is gone.
var ErrEnded = errors.New("the virtual machine has ended")

// HasVsock reports whether this process can give guests a vsock device.
func HasVsock() bool {
	f, err := os.OpenFile("/dev/vhost-vsock", os.O_RDWR, 0)
	if err == nil {
		f.Close()
	}
	return err == nil
}

// Start boots a guest and returns as soon as QEMU runs; [VM.Ready] waits for
// the guest. When ctx ends, so does the guest. The caller calls [VM.Stop].
func Start(ctx context.Context, cfg Config) (*VM, error) {
	if err := Require(); err != nil {
		return nil, err
	}
	if cfg.CID != 0 && !HasVsock() {
		return nil, errors.New("/dev/vhost-vsock cannot be opened; run: modprobe vhost_vsock")
	}
	dir, err := os.MkdirTemp("", "rum-vm-")
	if err != nil {
		return nil, fmt.Errorf("start a guest: %w", err)
	}
	v, err := start(ctx, cfg, dir)
	if err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("start a guest: %w", err)
	}
	return v, nil
}

func start(ctx context.Context, cfg Config, dir string) (*VM, error) {
	kernel, err := FetchKernel(ctx, nil)
	if err != nil {
		return nil, err
	}
	accel, err := Accelerator(ctx, kernel)
	if err != nil {
		return nil, err
	}
	if cfg.Boot == nil {
		guest := cfg.Guest
		if cfg.CID != 0 {
			guest.Modules = append(slices.Clone(guest.Modules), VsockModule)
		}
		initrd := filepath.Join(dir, "initramfs")
		if err := guest.Write(ctx, kernel, initrd); err != nil {
			return nil, err
		}
		cfg.Boot = &Boot{Kernel: kernel.Image, Initrd: initrd, Append: "quiet console=" + serialConsole()}
	}
	cfg.Memory = cmp.Or(cfg.Memory, 256)
	cfg.CPUs = cmp.Or(cfg.CPUs, 1)
	cfg.SerialSocket = cmp.Or(cfg.SerialSocket, filepath.Join(dir, "agent"))

	v := &VM{dir: dir, socket: cfg.SerialSocket, ended: make(chan struct{})}
	if err := v.launch(ctx, cfg.args(dir, accel)); err != nil {
		return nil, err
	}
	conn, err := v.dialShell(ctx)
	if err != nil {
		v.kill()
		return nil, err
	}
	v.shell = newShell(conn)
	return v, nil
}

// launch starts QEMU and a goroutine that lives as long as QEMU does. The
// kernel delivers Pdeathsig when the thread that forked is gone, not the
// process, so that goroutine keeps its thread to itself.
func (v *VM) launch(ctx context.Context, args []string) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		var said bytes.Buffer
		cmd := exec.CommandContext(ctx, qemuBinary(), args...)
		cmd.Stdout, cmd.Stderr = &said, &said
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
		err := cmd.Start()
		if err == nil {
			v.qemu = cmd.Process
		}
		started <- err
		if err != nil {
			return
		}
		err = cmd.Wait()
		v.err = fmt.Errorf("%w: %w", ErrEnded, cmp.Or(err, errors.New("QEMU exited")))
		if text := strings.TrimSpace(said.String()); text != "" {
			v.err = fmt.Errorf("%w: %s", v.err, text)
		}
		close(v.ended)
	}()
	return <-started
}

// dialShell connects as soon as QEMU has made its sockets, which is before
// the guest runs, so nothing the guest says is lost.
func (v *VM) dialShell(ctx context.Context) (net.Conn, error) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := net.Dial("unix", filepath.Join(v.dir, "shell"))
		if err == nil {
			return conn, nil
		}
		select {
		case <-tick.C:
		case <-v.ended:
			return nil, v.err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Ready waits until the guest has booted and runs commands.
func (v *VM) Ready(ctx context.Context) error {
	_, err := v.Run(ctx, "true")
	return err
}

// Run executes a shell command in the guest, as root, and returns what it
// wrote. It waits for a guest that is still booting. A command that fails
// gives an [*ExitError]. Commands run one after another; one that ctx cuts
// short goes on in the guest and delays the next.
func (v *VM) Run(ctx context.Context, command string) (string, error) {
	alive, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	over := make(chan struct{})
	defer close(over)
	go func() {
		select {
		case <-v.ended:
			cancel(v.err)
		case <-over:
		}
	}()
	out, err := v.shell.run(alive, command)
	if exit := (*ExitError)(nil); err == nil || errors.As(err, &exit) {
		return out, err
	}
	if ctx.Err() == nil {
		// Nobody asked for an end, so QEMU is ending, and a broken connection
		// may be the first to be seen of it.
		select {
		case <-v.ended:
			err = fmt.Errorf("run %q in the guest: %w", command, v.err)
		case <-ctx.Done():
		}
	}
	return "", fmt.Errorf("%w\n%s", err, v.consoleTail())
}

// QMP executes a command on QEMU's monitor, such as "set_link", and returns
// its result.
func (v *VM) QMP(ctx context.Context, command string, args any) (json.RawMessage, error) {
	return qmp(ctx, filepath.Join(v.dir, "qmp"), command, args)
}

// Pause stops the guest's CPUs; the host's sockets stay open.
func (v *VM) Pause(ctx context.Context) error { return v.command(ctx, "stop") }

// Resume lets a paused guest go on.
func (v *VM) Resume(ctx context.Context) error { return v.command(ctx, "cont") }

// Reset pushes the reset button and returns when the guest, booted anew, runs
// commands again.
func (v *VM) Reset(ctx context.Context) error {
	before, err := v.bootID(ctx)
	if err != nil {
		return err
	}
	if err := v.command(ctx, "system_reset"); err != nil {
		return err
	}
	for {
		// A request that the reset swallowed is never answered.
		try, cancel := context.WithTimeout(ctx, 3*time.Second)
		now, err := v.bootID(try)
		cancel()
		switch {
		case err == nil && now != before:
			return nil
		case ctx.Err() != nil || errors.Is(err, ErrEnded):
			return err
		}
	}
}

func (v *VM) bootID(ctx context.Context) (string, error) {
	return v.Run(ctx, "cat /proc/sys/kernel/random/boot_id")
}

func (v *VM) command(ctx context.Context, name string) error {
	_, err := v.QMP(ctx, name, nil)
	return err
}

// SerialSocket is the host's end of [AgentPort].
func (v *VM) SerialSocket() string { return v.socket }

// PID is QEMU's process id.
func (v *VM) PID() int { return v.qemu.Pid }

// Console returns what the guest has written to its serial console so far.
func (v *VM) Console() string {
	log, err := os.ReadFile(filepath.Join(v.dir, "console.log"))
	if err != nil {
		return err.Error()
	}
	return string(log)
}

// consoleTail is the end of the console, for an error.
func (v *VM) consoleTail() string {
	lines := strings.Split(strings.TrimSpace(v.Console()), "\n")
	return "console:\n" + strings.Join(lines[max(0, len(lines)-20):], "\n")
}

// Wait returns when the guest has powered itself off, or with ctx's error.
func (v *VM) Wait(ctx context.Context) error {
	select {
	case <-v.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Stop ends the guest without asking it, waits for QEMU to be gone and
// removes its files. It may be called more than once.
func (v *VM) Stop() {
	v.kill()
	v.shell.conn.Close()
	os.RemoveAll(v.dir)
}

func (v *VM) kill() {
	v.qemu.Kill()
	<-v.ended
}
