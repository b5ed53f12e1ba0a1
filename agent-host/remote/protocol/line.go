package protocol

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// Version is that of this protocol. Both ends have to have the same.
const Version = 1

const (
	relayWord = "rum-relay"
	hostWord  = "rum-host"
	maxLine   = 256
	// maxNoise is how much may come before the relay's line, in bytes: what shell start-up files print.
	maxNoise = 64 << 10
)

// VersionError says that the other end speaks another version of this protocol.
type VersionError struct {
	// Theirs is the other end's, and Agent the version of its agent.
	Theirs int
	Agent  string
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("its agent is version %s, which speaks version %d of the protocol with relays, and this one speaks %d", e.Agent, e.Theirs, Version)
}

// NoiseError says that something else than a relay answers.
type NoiseError struct{ Said string }

func (e *NoiseError) Error() string {
	if e.Said == "" {
		return "no relay answers"
	}
	return fmt.Sprintf("no relay answers, but something that says %q", e.Said)
}

// RelayLine is what a relay says first.
func RelayLine(agent string) []byte { return line(relayWord, agent) }

// HostLine is what a host agent says first.
func HostLine(agent string) []byte { return line(hostWord, agent) }

func line(word, agent string) []byte {
	return fmt.Appendf(nil, "%s %d %s\n", word, Version, strings.Join(strings.Fields(wire.Clean(agent, maxLine/2)), "-"))
}

// ReadRelayLine reads up to the end of the relay's line and not beyond, and returns the version of the relay's agent. What a login prints
// before it is skipped. The errors are [*VersionError], [*NoiseError] and those of the reader.
func ReadRelayLine(r io.Reader) (agent string, err error) { return readLine(r, relayWord, maxNoise) }

// ReadHostLine is ReadRelayLine for the host agent's line, before which nothing may come.
func ReadHostLine(r io.Reader) (agent string, err error) { return readLine(r, hostWord, 0) }

func readLine(r io.Reader, word string, noise int) (agent string, err error) {
	in := bufio.NewReaderSize(byByte{r}, 16) // what is behind the line belongs to the session
	said := ""
	for read := 0; ; {
		text, err := oneLine(in)
		if fields := strings.Fields(text); len(fields) == 3 && strings.HasSuffix(text, "\n") && fields[0] == word {
			theirs, nerr := strconv.Atoi(fields[1])
			if agent := wire.Clean(fields[2], maxLine/2); nerr == nil && theirs != Version {
				return agent, &VersionError{theirs, agent}
			} else if nerr == nil {
				return agent, nil
			}
		}
		if text := strings.TrimSpace(text); text != "" {
			said = wire.Clean(text, maxLine/2)
		}
		if read += len(text); err == nil && read > noise {
			err = io.EOF
		}
		if errors.Is(err, io.EOF) {
			return "", &NoiseError{said}
		}
		if err != nil {
			return "", err
		}
	}
}

// oneLine reads a line, or as much of it as a line of ours may have.
func oneLine(in *bufio.Reader) (string, error) {
	var b strings.Builder
	for b.Len() < maxLine {
		c, err := in.ReadByte()
		if err != nil {
			return b.String(), err
		}
		b.WriteByte(c)
		if c == '\n' {
			break
		}
	}
	return b.String(), nil
}

// byByte reads no more than what is asked of it next.
type byByte struct{ r io.Reader }

func (b byByte) Read(p []byte) (int, error) { return b.r.Read(p[:min(len(p), 1)]) }
