// Traffic is a service that sends back what it gets, or its clients:
//
//	traffic serve ADDRESS
//	traffic ask ADDRESS CLIENTS     until SIGTERM; then it tells how they fared
//	traffic until ADDRESS           one is served; then it tells how long that took
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "traffic:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "serve":
		return serve(args[1])
	case len(args) == 3 && args[0] == "ask":
		n, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		ask(args[1], n)
		return nil
	}
	if len(args) == 2 && args[0] == "until" {
		began := time.Now()
		for once(args[1], time.Second) != nil {
			time.Sleep(time.Millisecond)
		}
		fmt.Printf("a client is served after %v\n", time.Since(began).Round(time.Millisecond))
		return nil
	}
	return errors.New("usage: traffic serve ADDRESS | ask ADDRESS CLIENTS | until ADDRESS")
}

func serve(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
	}
}

func ask(addr string, clients int) {
	var served, refused, cut, longest atomic.Int64
	over := make(chan struct{})
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				began := time.Now()
				switch err := once(addr, 30*time.Second); {
				case errors.Is(err, syscall.ECONNREFUSED):
					refused.Add(1)
				case err != nil:
					cut.Add(1)
				default:
					served.Add(1)
				}
				for took := int64(time.Since(began)); ; {
					if was := longest.Load(); took <= was || longest.CompareAndSwap(was, took) {
						break
					}
				}
				time.Sleep(20 * time.Millisecond) // an emulated machine has other things to do
			}
		})
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	<-stop
	close(over)
	wg.Wait()
	fmt.Printf("served %d refused %d cut %d longest %v\n", served.Load(), refused.Load(), cut.Load(), time.Duration(longest.Load()).Round(time.Millisecond))
}

func once(addr string, within time.Duration) error {
	c, err := net.DialTimeout("tcp", addr, within)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(within))
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err = io.ReadFull(c, make([]byte, 1))
	return err
}
