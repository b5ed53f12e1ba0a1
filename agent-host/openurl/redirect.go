package openurl

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// redirectKey is the parameter in which a page where somebody logs in is told where to go on (RFC 6749, RFC 8252).
const redirectKey = "redirect_uri"

// maxNested is how deep in the parameters of parameters that is looked for: a page where one has to log in first, to
// log in there, has the other in a parameter of its own.
const maxNested = 3

// callbacks yields what of this host the redirect_uri of a query names, and those in queries within it.
func callbacks(query string, here *thisHost, depth int, yield func(*target)) error {
	if depth > maxNested {
		return nil
	}
	for pair := range strings.FieldsFuncSeq(query, func(c rune) bool { return c == '&' || c == ';' }) {
		key, value, _ := strings.Cut(pair, "=")
		key, err := url.QueryUnescape(key)
		if err != nil {
			continue // nobody else understands it either
		}
		value, err = url.QueryUnescape(value)
		if err != nil {
			continue
		}
		if key == redirectKey {
			// Some escape it twice.
			for n := 0; n < maxNested && !strings.Contains(value, "/"); n++ {
				again, err := url.QueryUnescape(value)
				if err != nil || again == value {
					break
				}
				value = again
			}
			t, err := callback(value, here)
			if err != nil {
				return fmt.Errorf("%s: %w", redirectKey, err)
			}
			if t != nil {
				yield(t)
			}
			continue
		}
		if _, inner, ok := strings.Cut(value, "?"); ok {
			value, _, _ = strings.Cut(inner, "#")
		}
		if err := callbacks(value, here, depth+1, yield); err != nil {
			return err
		}
	}
	return nil
}

// callback is the place on this host to which a redirect_uri leads; nil for one that leads elsewhere, which is between
// the page and who registered it.
func callback(text string, here *thisHost) (*target, error) {
	t, _, err := parseOne(text, here)
	if scheme, _, _ := strings.Cut(strings.ToLower(text), ":"); scheme != "http" && scheme != "https" {
		return nil, nil // a scheme of an application's own, or nothing that is a URL
	}
	if err != nil {
		return nil, err
	}
	if t.place != loopback {
		return nil, nil
	}
	return t, nil
}

// onLocalhost reports whether browsers find a loopback target on 127.0.0.1 and ::1.
func (t *target) onLocalhost() bool {
	if t.addr.IsValid() {
		return slices.Contains(localhosts, t.addr.Unmap())
	}
	return t.host == "localhost" || strings.HasSuffix(t.host, ".localhost")
}
