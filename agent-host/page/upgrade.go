package page

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
)

// upgrading answers a request for another protocol. Once the service has taken that, a failure of either connection
// resets the other, since nothing else need tell a whole stream from one that was cut.
type upgrading struct {
	http.ResponseWriter
	service net.Conn // which the request was sent by
}

// trace finds out which connection to the service the request takes.
func (w *upgrading) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) { w.service = got.Conn }})
}

// Unwrap is for [http.ResponseController].
func (w *upgrading) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Hijack makes it an [http.Hijacker].
func (w *upgrading) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	// The reader itself would end the request, and so the service's connection, with the first EOF.
	early, err := rw.Reader.Peek(rw.Reader.Buffered())
	return &upgraded{conn, io.MultiReader(bytes.NewReader(early), conn), w.service}, rw, err
}

// upgraded is a client's connection once it has another protocol.
type upgraded struct {
	net.Conn
	r       io.Reader // begins with what the client sent together with its request
	service net.Conn
}

func (u *upgraded) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		abort(u.service)
	}
	return n, err
}

func (u *upgraded) Write(p []byte) (int, error) {
	n, err := u.Conn.Write(p)
	if err != nil {
		abort(u.service)
	}
	return n, err
}

// CloseWrite tells the client that the service sends no more.
func (u *upgraded) CloseWrite() error { return u.Conn.(*client).CloseWrite() }

// abort has a service see a reset.
func abort(service net.Conn) {
	switch c := service.(type) {
	case interface{ Abort() }:
		c.Abort()
	case *net.TCPConn:
		_ = c.SetLinger(0) // until it is closed
	}
}

// serviceConn is what the body of an answer is that has changed to another protocol.
type serviceConn interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// watched is a connection to a service whose failure is the client's too.
type watched struct {
	serviceConn
	client *client
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.serviceConn.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		w.client.cut()
	}
	return n, err
}

func (w *watched) Write(p []byte) (int, error) {
	n, err := w.serviceConn.Write(p)
	if err != nil {
		w.client.cut()
	}
	return n, err
}
