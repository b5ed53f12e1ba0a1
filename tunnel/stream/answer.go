package stream

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/clock"
	"github.com/rum-vm/rum-agent/tunnel/latency"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// Answer waits for the guest's answer, as the first Read does, and takes nothing of what
// follows it. An error is that of Read. The stream is aborted when ctx ends.
func (s *Stream) Answer(ctx context.Context) error {
	stop := context.AfterFunc(ctx, s.Abort)
	defer stop()
	return s.prepareRead()
}

// answerTimeout bounds how long the host waits for the guest's answer. It is
// longer than the guest's own limit for the dial, so that normally the guest's
// reason arrives.
const answerTimeout = wire.DialTimeout + 5*time.Second

// prepareRead takes the guest's answer off the stream; in the guest there is
// none. A deadline that expires meanwhile loses nothing of it.
func (s *Stream) prepareRead() error {
	s.answerMu.Lock()
	defer s.answerMu.Unlock()
	if s.answered.Load() {
		return s.answerErr
	}
	err := s.answer.Read(s.conn)
	for errors.Is(err, os.ErrDeadlineExceeded) && s.wasWoken() {
		err = s.answer.Read(s.conn)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	if err = s.gotAnswer(err); err != nil {
		s.Die(err)
	}
	return err
}

// gotAnswer notes the answer, or why none came.
func (s *Stream) gotAnswer(err error) error {
	s.mu.Lock()
	s.stopAnswerTimer()
	s.mu.Unlock()
	var refused *wire.AnswerError
	if err != nil && !errors.As(err, &refused) {
		err = fmt.Errorf("no answer from the guest: %w", s.translate(err))
	}
	s.answerErr = err
	s.answered.Store(true)
	if err == nil && s.dials != nil {
		s.dials.Observe(clock.Now() - s.asked)
	}
	return err
}

// CountDial has it counted how long the guest takes to connect. It is for who opens the stream, before the answer is read.
func (s *Stream) CountDial(dials *latency.Counter) { s.dials = dials }

// ExpectAnswer starts the time the guest has to answer. It does nothing if the stream is
// dead already.
func (s *Stream) ExpectAnswer() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	s.asked = clock.Now()
	s.answerTimer = time.AfterFunc(answerTimeout, func() {
		s.Fail(fmt.Errorf("no answer from the guest within %v: %w", answerTimeout, os.ErrDeadlineExceeded))
	})
}

// stopAnswerTimer needs s.mu. The timer would keep the stream in memory.
func (s *Stream) stopAnswerTimer() {
	if s.answerTimer != nil {
		s.answerTimer.Stop()
		s.answerTimer = nil
	}
}
