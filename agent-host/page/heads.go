package page

import (
	"bytes"
	"strconv"
)

// Heads are taken apart here where they are as nearly all are, and passed on line by line as they came. What is
// unusual, in whatever way, is left to package net/http, whether or not it is allowed: a line that ends otherwise than
// with CR LF, a folded one, two lengths, a name with a space behind it. So two readers of a message that is passed on
// here cannot differ about where it ends.

var crlf = []byte("\r\n")

// headOf is the head of a message with the empty line that ends it; nil where it is not all there.
func headOf(b []byte) []byte {
	i := bytes.Index(b, []byte("\r\n\r\n"))
	if i < 0 {
		return nil
	}
	return b[:i+4]
}

// meaning is what a field of a head is here.
type meaning int

const (
	ofTheEnds       meaning = iota // it is passed on
	ofTheHost                      // likewise, and says whom a request is for
	ofTheLength                    // likewise, and says how long a body is
	ofTheCoding                    // likewise, and says that a body is in chunks, or in what else
	ofPersistence                  // is left out if it only says that the connection stays
	ofItsTimeout                   // is left out
	ofSomethingMore                // wants more than is done here
)

var meanings = map[string]meaning{
	"host": ofTheHost, "content-length": ofTheLength, "transfer-encoding": ofTheCoding,
	"connection": ofPersistence, "keep-alive": ofItsTimeout,
	"expect": ofSomethingMore, "http2-settings": ofSomethingMore, "proxy-authenticate": ofSomethingMore,
	"proxy-authorization": ofSomethingMore, "proxy-connection": ofSomethingMore, "te": ofSomethingMore,
	"trailer": ofSomethingMore, "upgrade": ofSomethingMore,
}

// longestMeaning is the length of the longest name in meanings.
const longestMeaning = len("proxy-authorization")

// field takes apart a line of a head.
func field(line []byte) (of meaning, value []byte, ok bool) {
	name, value, ok := bytes.Cut(line, []byte(":"))
	if !ok || len(name) == 0 {
		return 0, nil, false
	}
	for _, c := range name {
		if !inNames[c] {
			return 0, nil, false
		}
	}
	if !isText(value) {
		return 0, nil, false
	}
	if len(name) <= longestMeaning {
		var lower [longestMeaning]byte
		for i, c := range name {
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			lower[i] = c
		}
		of = meanings[string(lower[:len(name)])]
	}
	return of, bytes.Trim(value, " \t"), true
}

// inNames are the bytes of names of fields (RFC 9110, 5.6.2).
var inNames = func() (in [256]bool) {
	for _, c := range []byte("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		in[c] = true
	}
	return in
}()

// isText reports whether there is nothing in b that has no place in a value, above all no CR or LF of its own.
func isText(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// staysOnly reports whether the value of Connection says that the connection stays, and no more.
func staysOnly(value []byte) bool { return bytes.EqualFold(value, []byte("keep-alive")) }

// plainRequest appends to b, for the service, the head of a request that wants an answer and no more. ok is false where
// it is no such head.
func plainRequest(b, head []byte) (sent, host []byte, ok bool) {
	line, rest, _ := bytes.Cut(head, crlf)
	target, ok := bytes.CutPrefix(line, []byte("GET "))
	if ok {
		target, ok = bytes.CutSuffix(target, []byte(" HTTP/1.1"))
	}
	if !ok || !isPlainTarget(target) {
		return nil, nil, false
	}
	b = append(append(b, line...), crlf...)
	for len(rest) > len(crlf) {
		line, rest, _ = bytes.Cut(rest, crlf)
		of, value, ok := field(line)
		switch {
		case !ok:
			return nil, nil, false
		case of == ofTheHost && host == nil && isPlainHost(value):
			host = value
		case of == ofPersistence && staysOnly(value), of == ofItsTimeout:
			continue
		case of != ofTheEnds:
			return nil, nil, false
		}
		b = append(append(b, line...), crlf...)
	}
	return append(b, crlf...), host, host != nil
}

// isPlainHost reports whether a host has nothing but what names and ports here have. Of other letters some are the
// lower case of these, which for net/http they are not.
func isPlainHost(host []byte) bool {
	for _, c := range host {
		if (c|' ' < 'a' || c|' ' > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != ':' {
			return false
		}
	}
	return true
}

// isPlainTarget reports whether what is asked for is a path, and perhaps a query, that nobody reads in two ways.
func isPlainTarget(target []byte) bool {
	if len(target) == 0 || target[0] != '/' {
		return false
	}
	for _, c := range target {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	path, _, _ := bytes.Cut(target, []byte("?"))
	for {
		_, escaped, found := bytes.Cut(path, []byte("%"))
		if !found {
			return true
		}
		if len(escaped) < 2 {
			return false
		}
		if _, err := strconv.ParseUint(string(escaped[:2]), 16, 8); err != nil {
			return false
		}
		path = escaped[2:]
	}
}

// inChunks is the length of a body that is in chunks.
const inChunks = -1

// plainAnswer appends to b, for the client, the head of an answer to GET behind which comes a body of that length, or
// one in chunks, and which leaves the connection as it is. ok is false where it is no such head.
func plainAnswer(b, head []byte) (sent []byte, length int, ok bool) {
	line, rest, _ := bytes.Cut(head, crlf)
	if len(line) < len("HTTP/1.1 200 ") || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) || line[12] != ' ' || !isText(line) {
		return nil, 0, false
	}
	code, err := strconv.ParseUint(string(line[9:12]), 10, 16)
	if err != nil || code < 200 { // others come before the answer
		return nil, 0, false
	}
	b = append(append(b, line...), crlf...)
	told := false
	for len(rest) > len(crlf) {
		line, rest, _ = bytes.Cut(rest, crlf)
		of, value, ok := field(line)
		switch {
		case !ok:
			return nil, 0, false
		case of == ofTheLength && !told:
			n, err := strconv.ParseUint(string(value), 10, 31)
			if err != nil {
				return nil, 0, false
			}
			length, told = int(n), true
		case of == ofTheCoding && !told && bytes.EqualFold(value, []byte("chunked")):
			length, told = inChunks, true
		case of == ofPersistence && staysOnly(value), of == ofItsTimeout:
			continue
		case of != ofTheEnds:
			return nil, 0, false
		}
		b = append(append(b, line...), crlf...)
	}
	switch code {
	case 204:
		told = !told || length == 0
	case 304: // the length is that of what is not sent
		told, length = length != inChunks, 0
	}
	return append(b, crlf...), length, told
}

// chunked is the length of a body in chunks (RFC 9112, 7.1) that b begins with. ok is false where it is not all there,
// or is more than chunks.
func chunked(b []byte) (n int, ok bool) {
	rest := b
	for {
		line, after, _ := bytes.Cut(rest, crlf)
		size, err := strconv.ParseUint(string(line), 16, 16)
		if err != nil || uint64(len(after)) < size || !bytes.HasPrefix(after[size:], crlf) {
			return 0, false
		}
		rest = after[int(size)+len(crlf):]
		if size == 0 {
			return len(b) - len(rest), true
		}
	}
}
