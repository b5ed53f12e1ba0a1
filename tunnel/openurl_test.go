package tunnel_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// opens is a configuration of a host that answers each URL with an outcome, and the URLs that it was given.
func opens(o wire.OpenOutcome, reason string) (tunnel.Config, <-chan string) {
	cfg, urls := keyed, make(chan string, 16)
	cfg.OpenURL = func(_ uint32, url string, answer func(wire.OpenOutcome, string)) {
		urls <- url
		go answer(o, reason)
	}
	return cfg, urls
}

// linked waits until a guest has links that have begun.
func linked(t *testing.T, g *guest, n int) {
	t.Helper()
	eventually(t, "the links", func() bool {
		hosts := g.server.Hosts()
		for _, h := range hosts {
			if h.Name == "" {
				return false
			}
		}
		return len(hosts) == n
	})
}

func TestAURLOfTheGuestsReachesItsHostAndTheAnswerTheGuest(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			g := startGuest(t, kind, keyed)
			cfg, urls := opens(wire.OpenAsked, "on the page")
			startLink(t, g, cfg)
			linked(t, g, 1)
			for _, url := range []string{"https://example.com/a?b=c", strings.Repeat("u", wire.MaxURL), "\x00 not a URL \xff"} {
				a, err := g.server.OpenURL(t.Context(), 0, url)
				if err != nil || a.Outcome != wire.OpenAsked || a.Reason != "on the page" {
					t.Fatalf("%+v (%v)", a, err)
				}
				if got := soon(t, urls, "the URL arrives"); got != url {
					t.Errorf("%q arrived as %q", url, got)
				}
			}
		})
	}
}

func TestTheHostIsToldWhichUserOfTheGuestAsks(t *testing.T) {
	g := startGuest(t, "raw", keyed)
	cfg, users := keyed, make(chan uint32, 2)
	cfg.OpenURL = func(user uint32, _ string, answer func(wire.OpenOutcome, string)) {
		users <- user
		answer(wire.OpenOpened, "")
	}
	startLink(t, g, cfg)
	linked(t, g, 1)
	for _, user := range []uint32{0, 1000} {
		if _, err := g.server.OpenURL(t.Context(), user, "https://example.com/"); err != nil {
			t.Fatal(err)
		}
		if got := soon(t, users, "the URL arrives"); got != user {
			t.Errorf("the host takes user %d for %d", user, got)
		}
	}
}

func TestWithoutAKeyNoHostIsAskedToOpenAURL(t *testing.T) {
	g := startGuest(t, "raw", tunnel.Config{})
	if _, err := g.server.OpenURL(t.Context(), 0, "https://example.com/"); !errors.Is(err, tunnel.ErrNoHost) {
		t.Errorf("without a host: %v", err)
	}
	cfg, urls := opens(wire.OpenOpened, "")
	cfg.Key = nil
	startLink(t, g, cfg)
	linked(t, g, 1)
	_, err := g.server.OpenURL(t.Context(), 0, "https://example.com/")
	if !errors.Is(err, tunnel.ErrNoHost) || !strings.Contains(err.Error(), "a key") || !strings.Contains(err.Error(), "install") {
		t.Errorf("%v, want that there is no key, and what to do", err)
	}
	if len(urls) > 0 {
		t.Error("the host was asked")
	}
}

// TestOfSeveralHostsTheFirstThatAllowsItOpensAURL has one that allows nothing before two that do.
func TestOfSeveralHostsTheFirstThatAllowsItOpensAURL(t *testing.T) {
	g := startGuest(t, "raw", keyed)
	startLink(t, g, keyed) // which opens nothing
	linked(t, g, 1)
	never, asked := opens(wire.OpenNotAllowed, "open_urls is no")
	startLink(t, g, never)
	linked(t, g, 2)
	a, err := g.server.OpenURL(t.Context(), 0, "https://example.com/1")
	if err != nil || a.Outcome != wire.OpenNotAllowed || a.Reason != "open_urls is no" {
		t.Errorf("where nobody allows it: %+v (%v)", a, err)
	}
	first, opened := opens(wire.OpenOpened, "")
	startLink(t, g, first)
	linked(t, g, 3)
	second, alsoOpened := opens(wire.OpenOpened, "")
	startLink(t, g, second)
	linked(t, g, 4)
	if a, err := g.server.OpenURL(t.Context(), 0, "https://example.com/2"); err != nil || a.Outcome != wire.OpenOpened {
		t.Errorf("%+v (%v)", a, err)
	}
	if len(asked) != 2 || len(opened) != 1 || len(alsoOpened) != 0 {
		t.Errorf("asked are %d, %d and %d times", len(asked), len(opened), len(alsoOpened))
	}
}

func TestAHostThatDoesNotAnswerOrGoesAwayKeepsNobodyWaiting(t *testing.T) {
	g := startGuest(t, "raw", keyed)
	cfg, came := keyed, make(chan string, 2)
	cfg.OpenURL = func(_ uint32, url string, _ func(wire.OpenOutcome, string)) { came <- url }
	l := startLink(t, g, cfg)
	linked(t, g, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-came; cancel() }()
	if _, err := g.server.OpenURL(ctx, 0, "https://example.com/"); !errors.Is(err, context.Canceled) {
		t.Errorf("a host that is silent: %v", err)
	}
	go func() { <-came; _ = l.Close() }()
	if _, err := g.server.OpenURL(t.Context(), 0, "https://example.com/"); err == nil || errors.Is(err, tunnel.ErrNoHost) {
		t.Errorf("a host that goes away: %v", err)
	}
}
