package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// webPort is that of the web server at the guest.
	webPort = 5205
	// webConns are the connections of its clients, which stay.
	webConns = 16
	// webTurns is how often each way is measured in a round, for webTurn at a time.
	webTurns = 5
	webTurn  = time.Second
)

// webText is the body of its answers.
const webText = "fifty bytes, as many as nginx is asked to answer.\n"

// webConfig is what nginx is told. One worker is what two processors have room for beside all else.
const webConfig = `daemon off;
user root;
worker_processes 1;
pid %[1]s/nginx.pid;
events {}
http {
	access_log off;
	keepalive_requests 1000000000;
	client_body_temp_path %[1]s;
	proxy_temp_path %[1]s;
	fastcgi_temp_path %[1]s;
	uwsgi_temp_path %[1]s;
	scgi_temp_path %[1]s;
	server {
		listen 127.0.0.1:%[2]d;
		location / { return 200 "%[3]s"; }
	}
}
`

// startWeb starts the web server in a namespace: nginx where it is installed, else one in Go.
func startWeb(in netns) (*process, error) {
	nginx, err := findTool("nginx")
	if err != nil {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		return startProcess(in.command(self, roleWeb)...)
	}
	config := scratchPath("nginx.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, webConfig, scratch, webPort, webText), 0o600); err != nil {
		return nil, err
	}
	return startProcess(in.command(nginx, "-e", "stderr", "-c", config)...)
}

// serveWeb is the program's role as a web server, until ctx ends.
func serveWeb(ctx context.Context) error {
	srv := &http.Server{Addr: webAddress(), Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(webText))
	})}
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
	if err := srv.ListenAndServe(); ctx.Err() == nil {
		return err
	}
	return nil
}

func webAddress() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(webPort)) }

// requestRates measures how many requests a second the web server answers through its forward, and by name at
// the address of the page, in turns.
func requestRates(page, name string) measure {
	return func(ctx context.Context, _ target) (sample, error) {
		forward := func(d time.Duration) (float64, error) { return requestRate(webAddress(), webAddress(), d) }
		byName := func(d time.Duration) (float64, error) {
			return requestRate(page, fmt.Sprintf("%d.%s", webPort, name), d)
		}
		for _, way := range []func(time.Duration) (float64, error){forward, byName} {
			if err := waitAnswered(ctx, way); err != nil {
				return nil, err
			}
		}
		var plain, named, ratios []float64
		for turn := range 2*webTurns + 1 {
			way, rates := forward, &plain
			if turn%2 == 1 {
				way, rates = byName, &named
			}
			rate, err := way(webTurn)
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return nil, err
			}
			*rates = append(*rates, rate)
		}
		for i, rate := range named {
			ratios = append(ratios, 2*rate/(plain[i]+plain[i+1]))
		}
		s := make(sample)
		s[requests], _ = median(plain)
		s[requestsByName], _ = median(named)
		s[byNameRatio], _ = median(ratios)
		return s, nil
	}
}

// waitAnswered waits until there are answers, which takes the forward of the port, and has everything warmed up.
func waitAnswered(ctx context.Context, way func(time.Duration) (float64, error)) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		_, err := way(webTurn / 10)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the web server is not ready after %v: %w", readyTimeout, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// requestRate has each of webConns connections ask again as soon as it has its answer, all by one thread, so that what
// the client takes of the processors is little.
func requestRate(addr, host string, d time.Duration) (float64, error) {
	request := fmt.Appendf(nil, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", host)
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return 0, fmt.Errorf("epoll_create1: %w", err)
	}
	defer unix.Close(epoll)
	var conns [webConns]struct {
		blockingConn
		got []byte // of an answer
	}
	for i := range conns {
		c := &conns[i]
		if c.blockingConn, err = dialBlocking(addr); err != nil {
			return 0, err
		}
		defer c.Close()
		if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, int(c.blockingConn), &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}); err != nil {
			return 0, fmt.Errorf("epoll_ctl: %w", err)
		}
		if _, err := c.Write(request); err != nil {
			return 0, err
		}
	}
	answers, start := 0, time.Now()
	buf, events := make([]byte, 4096), make([]unix.EpollEvent, webConns)
	for time.Since(start) < d {
		n, err := unix.EpollWait(epoll, events, 10_000)
		if err == unix.EINTR {
			continue
		}
		if err == nil && n == 0 {
			err = os.ErrDeadlineExceeded
		}
		if err != nil {
			return 0, fmt.Errorf("wait for an answer of %s: %w", host, err)
		}
		for _, e := range events[:n] {
			c := &conns[e.Fd]
			n, err := c.Read(buf)
			if err != nil {
				return 0, fmt.Errorf("read an answer of %s: %w", host, err)
			}
			c.got = append(c.got, buf[:n]...)
			if !bytes.HasSuffix(c.got, []byte(webText)) {
				if len(c.got) > len(buf) || !bytes.HasPrefix(c.got, []byte("HTTP/1.1 200 ")) {
					return 0, fmt.Errorf("%s answers %q", host, c.got)
				}
				continue
			}
			answers, c.got = answers+1, c.got[:0]
			if _, err := c.Write(request); err != nil {
				return 0, err
			}
		}
	}
	return float64(answers) / time.Since(start).Seconds(), nil
}
