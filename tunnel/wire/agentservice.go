package wire

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/cryptobyte"
)

// NetworkAgent is the network of a target that is the guest agent itself: what it does for a host that has proved the key.
const NetworkAgent = "agent"

// What a guest agent serves itself, by the [Target.Path] of its target.
const (
	ServiceLog     = "log"     // [LogRequest]; its last lines come back
	ServiceUpgrade = "upgrade" // [UpgradeRequest], behind which its binary follows
)

const (
	// maxService bounds the name of what an agent serves itself, in bytes.
	maxService = 16
	// maxArgs bounds what is said to it.
	maxArgs = 128
	// MaxUpgradeVersion bounds the version of an [UpgradeRequest], in bytes.
	MaxUpgradeVersion = 64
)

// checkService reports what is wrong with a target of [NetworkAgent].
func checkService(name string, args []byte) error {
	switch {
	case name == "" || len(name) > maxService || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz") != "":
		return fmt.Errorf("service %q of an agent, want 1 to %d small letters", Clean(name, maxService), maxService)
	case len(args) > maxArgs:
		return fmt.Errorf("%d bytes are said to a service of an agent, at most %d are allowed", len(args), maxArgs)
	}
	return nil
}

func addService(b *cryptobyte.Builder, t Target) {
	b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(t.Path)) })
	b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(t.Args) })
}

func readService(s *cryptobyte.String, t *Target) error {
	var name, args cryptobyte.String
	if !s.ReadUint8LengthPrefixed(&name) || !s.ReadUint8LengthPrefixed(&args) {
		return errors.New("service of an agent is cut short")
	}
	t.Path, t.Args = string(name), args
	return nil
}

// LogRequest asks for the last lines of a guest agent's log.
type LogRequest struct {
	Lines  uint32 // at most so many
	Follow bool   // those that come later too
}

// Target is where the request goes.
func (r LogRequest) Target() Target {
	b := cryptobyte.NewBuilder(nil)
	b.AddUint32(r.Lines)
	addBool(b, r.Follow)
	return Target{Network: NetworkAgent, Path: ServiceLog, Args: b.BytesOrPanic()}
}

// ReadLogRequest is the inverse of Target.
func ReadLogRequest(args []byte) (r LogRequest, err error) {
	s := cryptobyte.String(args)
	if !s.ReadUint32(&r.Lines) || !readBool(&s, &r.Follow) {
		return r, fmt.Errorf("request for a log is %w", errShort)
	}
	return r, nil
}

// UpgradeRequest says which binary is to take the guest agent's place.
type UpgradeRequest struct {
	Sum       [sha256.Size]byte
	Size      uint64 // in bytes
	Version   string // of at most MaxUpgradeVersion bytes
	Downgrade bool   // it may be an older one
}

// Target is where the request goes.
func (r UpgradeRequest) Target() Target {
	b := cryptobyte.NewBuilder(nil)
	b.AddBytes(r.Sum[:])
	b.AddUint64(r.Size)
	addBool(b, r.Downgrade)
	addString(b, r.Version, MaxUpgradeVersion)
	return Target{Network: NetworkAgent, Path: ServiceUpgrade, Args: b.BytesOrPanic()}
}

// ReadUpgradeRequest is the inverse of Target.
func ReadUpgradeRequest(args []byte) (r UpgradeRequest, err error) {
	s := cryptobyte.String(args)
	if !s.CopyBytes(r.Sum[:]) || !s.ReadUint64(&r.Size) || !readBool(&s, &r.Downgrade) {
		return r, fmt.Errorf("request for an upgrade is %w", errShort)
	}
	return r, readString(&s, &r.Version, MaxUpgradeVersion)
}
