package fdstore

import (
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// flushSoon needs s.mu.
func (s *Store) flushSoon() {
	if !s.flushing {
		s.flushing = true
		go s.flush()
	}
}

// message is one to systemd.
type message struct {
	state string
	fds   []int
}

// flush tells systemd what it has not heard: what is there no more, the map, and listeners that the map has.
func (s *Store) flush() {
	s.sending.Lock()
	defer s.sending.Unlock()
	s.mu.Lock()
	s.flushing = false
	messages := s.messages()
	s.mu.Unlock()
	for _, m := range messages {
		if err := s.send(m.state, m.fds...); err != nil {
			s.log.Warn("a listener is not kept while this agent is replaced", "error", err)
		}
		for _, fd := range m.fds {
			_ = unix.Close(fd)
		}
	}
}

// messages needs s.mu.
func (s *Store) messages() (all []message) {
	for _, index := range s.removed {
		all = append(all, message{state: "FDSTOREREMOVE=1\nFDNAME=" + index})
	}
	s.removed = nil
	if s.changed {
		s.changed = false
		if fd, err := s.writeMap(); err == nil {
			all = append(all, message{"FDSTORE=1\nFDNAME=" + mapName(s.mapIndex+1), []int{fd}})
			if s.mapIndex > 0 {
				all = append(all, message{state: "FDSTOREREMOVE=1\nFDNAME=" + mapName(s.mapIndex)})
			}
			s.mapIndex++
		} else {
			s.log.Warn("listeners are not kept while this agent is replaced", "error", err)
		}
	}
	var streams, datagrams []*entry
	for _, e := range s.unsent {
		switch {
		case e.fd < 0: // dropped before it was sent
		case e.Proto == "udp":
			datagrams = append(datagrams, e)
		default:
			streams = append(streams, e)
		}
	}
	s.unsent = nil
	for some := range slices.Chunk(streams, perMessage) {
		all = append(all, s.message("FDSTORE=1", some))
	}
	for one := range slices.Chunk(datagrams, 1) {
		all = append(all, s.message("FDSTORE=1\nFDPOLL=0", one))
	}
	return all
}

// message stores entries under the next index. It needs s.mu.
func (s *Store) message(state string, entries []*entry) message {
	index := strconv.Itoa(s.next)
	s.next++
	m := message{state: state + "\nFDNAME=" + index}
	for _, e := range entries {
		m.fds = append(m.fds, e.fd)
		e.fd, e.Index = -1, index
	}
	s.members[index] = len(entries)
	return m
}
