// Command http3 is the two ends of the HTTP/3 measurement of command bench: a server, and a client that says how long
// a download took. It is a module of its own, so that the agents do not depend on what it needs.
package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/quic-go/quic-go/http3"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "http3:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch {
	case len(args) == 2 && args[0] == "serve":
		return serve(ctx, args[1])
	case len(args) == 3 && args[0] == "get":
		return get(ctx, args[1], args[2])
	}
	return errors.New("usage: http3 serve ADDRESS | http3 get ADDRESS BYTES")
}

// serve answers /N with N bytes until ctx ends.
func serve(ctx context.Context, addr string) error {
	cert, err := certificate()
	if err != nil {
		return err
	}
	chunk := make([]byte, 64<<10)
	srv := &http3.Server{
		Addr:      addr,
		TLSConfig: http3.ConfigureTLSConfig(&tls.Config{Certificates: []tls.Certificate{cert}}),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			left, err := strconv.Atoi(r.URL.Path[1:])
			if err != nil {
				http.Error(w, "how many bytes?", http.StatusBadRequest)
				return
			}
			for left > 0 {
				n, err := w.Write(chunk[:min(left, len(chunk))])
				if err != nil {
					return
				}
				left -= n
			}
		}),
	}
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
	if err := srv.ListenAndServe(); ctx.Err() == nil {
		return err
	}
	return nil
}

// get prints how many seconds it takes to download so many bytes over a connection that is there already.
func get(ctx context.Context, addr, bytes string) error {
	transport := &http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer transport.Close()
	client := &http.Client{Transport: transport}
	if _, err := download(ctx, client, addr, "1000"); err != nil {
		return err
	}
	took, err := download(ctx, client, addr, bytes)
	if err != nil {
		return err
	}
	_, err = fmt.Println(took.Seconds())
	return err
}

func download(ctx context.Context, client *http.Client, addr, bytes string) (took time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+addr+"/"+bytes, nil)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	answer, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	n, err := io.Copy(io.Discard, answer.Body)
	if err == nil && strconv.FormatInt(n, 10) != bytes {
		err = fmt.Errorf("%d bytes of %s came", n, bytes)
	}
	return time.Since(start), err
}

func certificate() (tls.Certificate, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, err
}
