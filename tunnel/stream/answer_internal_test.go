package stream

import (
	"testing"

	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

func TestAStreamThatDiesUnansweredLeavesNoTimer(t *testing.T) {
	e := &Ends{Tell: func(wire.EndMessage) {}}
	s := New(1, e)
	if err := e.Add(s); err != nil {
		t.Fatal(err)
	}
	s.ExpectAnswer()
	timer := s.answerTimer
	s.Die(relay.ErrResetByPeer)
	if timer.Stop() {
		t.Error("the timer of the answer still runs")
	}
	s.ExpectAnswer()
	if s.answerTimer != nil {
		t.Error("a dead stream waits for an answer")
	}
}
