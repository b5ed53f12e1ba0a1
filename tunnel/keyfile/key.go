package keyfile

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
)

// Size is the length of a key in bytes: the output of SHA-256, below which HMAC-SHA256 keys should not go (RFC 2104
// section 3).
const Size = 32

// Key is a shared secret. The zero value is no key. It prints as a placeholder, so that no log shows it.
type Key [Size]byte

// New returns a random key.
func New() Key {
	var k Key
	rand.Read(k[:]) // documented never to fail: the program ends instead
	return k
}

// String hides the key.
func (Key) String() string { return "[key]" }

// GoString hides the key.
func (Key) GoString() string { return "[key]" }

// Encode returns the content of the key's file.
func (k Key) Encode() []byte { return []byte(hex.EncodeToString(k[:]) + "\n") }

// Parse is the inverse of Encode; white space around the digits does not matter, and 32 bytes that are no digits are the
// key itself. What is refused is not quoted: it may be most of a secret. A key of zeros is refused too, because that is
// what no key looks like. The error wraps [ErrNotKey].
func Parse(data []byte) (Key, error) {
	var k Key
	if len(data) == Size {
		copy(k[:], data)
	} else {
		text := strings.TrimSpace(string(data))
		if len(text) != 2*Size {
			return Key{}, fmt.Errorf("%w: %d characters instead of %d hexadecimal digits", ErrNotKey, len(text), 2*Size)
		}
		if _, err := hex.Decode(k[:], []byte(text)); err != nil {
			return Key{}, fmt.Errorf("%w: something other than %d hexadecimal digits", ErrNotKey, 2*Size)
		}
	}
	if k == (Key{}) {
		return Key{}, fmt.Errorf("%w: all zeros", ErrNotKey)
	}
	return k, nil
}
