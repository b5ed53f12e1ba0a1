package events

import (
	"context"
	"time"
)

// Follow yields what happened after a cursor, and then what happens, in the order of cursors,
// until ctx ends, which is no error, or yield fails. Events that were forgotten before
// they could be yielded are counted in one of kind [Missed]; what an earlier run of the agent
// had is not counted.
func (h *History) Follow(ctx context.Context, cursor uint64, yield func([]Event) error) error {
	for ctx.Err() == nil {
		events, changed := h.read(&cursor)
		if len(events) > 0 {
			if err := yield(events); err != nil {
				return err
			}
			continue
		}
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
	return nil
}

// read returns what is behind a cursor, which it moves on, or if that is nothing a channel
// that is closed with the next event.
func (h *History) read(cursor *uint64) ([]Event, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	*cursor = max(*cursor, h.first-1) // of an earlier run
	if last := h.next - 1; *cursor >= last {
		*cursor = last // one that this agent never gave
		if h.changed == nil {
			h.changed = make(chan struct{})
		}
		return nil, h.changed
	}
	events := h.after(*cursor)
	from := *cursor + 1
	if missed := h.next - from - uint64(len(events)); missed > 0 {
		events = append([]Event{{Cursor: from + missed - 1, Time: time.Now(), Kind: Missed, Count: missed}}, events...)
	}
	*cursor = h.next - 1
	return events, nil
}
