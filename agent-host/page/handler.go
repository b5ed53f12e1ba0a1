package page

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

//go:embed static
var static embed.FS

// files are what a browser gets of the page, by path.
var files = map[string]struct{ name, kind string }{
	"/{$}":      {"index.html", "text/html; charset=utf-8"},
	"/page.css": {"page.css", "text/css; charset=utf-8"},
	"/icon.svg": {"icon.svg", "image/svg+xml"},
	"/page.js":  {"page.js", "text/javascript; charset=utf-8"},
	"/api.js":   {"api.js", "text/javascript; charset=utf-8"},
	"/rows.js":  {"rows.js", "text/javascript; charset=utf-8"},
	"/chart.js": {"chart.js", "text/javascript; charset=utf-8"},
	"/panel.js": {"panel.js", "text/javascript; charset=utf-8"},
}

// policy is what the page may load, which is its own files and nothing else, and who may show it in a frame,
// which is nobody. Nothing becomes HTML that was text.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// answerWithin is how long a client of the page may take to read an answer, and to send what is wanted.
const answerWithin = 30 * time.Second

// ServeHTTP answers by the Host that the client means.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	host := strings.ToLower(r.Host)
	name, named := strings.CutSuffix(host, p.suffix)
	// Errors here are of a writer that has no deadlines. Those of the page wait for nobody, and services as
	// long as they like.
	control, deadline := http.NewResponseController(w), time.Time{}
	own := p.own[host] || named && isFresh(name)
	if own {
		deadline = time.Now().Add(answerWithin)
	}
	_ = control.SetWriteDeadline(deadline)
	if r.ProtoMajor == 1 {
		defer clientOf(r.Context()).forgetAsked()
	}
	switch {
	case own:
		if r.ProtoMajor == 1 {
			ctx, gone := context.WithCancel(r.Context())
			defer gone()
			clientOf(ctx).whenEnded(gone)
			defer clientOf(ctx).whenEnded(nil)
			r = r.WithContext(ctx)
		}
		p.pages.ServeHTTP(w, r)
	case !named || name == "" || r.Method == http.MethodConnect:
		refuse(w, http.StatusMisdirectedRequest, "nothing of this name is here")
	default:
		p.serveName(w, r, name)
	}
}

func (p *Page) serveName(w http.ResponseWriter, r *http.Request, name string) {
	if key, connect := p.destination(clientOf(r.Context()), name); connect != nil {
		p.names.serve(w, r, &destination{name: name, key: key, connect: connect})
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	harden(h)
	w.WriteHeader(http.StatusNotFound)
	// An error here is a client that has gone.
	_ = missing.Execute(w, struct {
		Name string
		VMs  []status.VM
	}{name + p.suffix, p.found(name)})
}

// destination is the service that a name leads a client to; connect is nil where there is none.
func (p *Page) destination(c *client, name string) (key string, connect func(context.Context) (net.Conn, error)) {
	vm, meant, ok := p.service(name)
	if !ok {
		return "", nil
	}
	from, at := c.addresses()
	return p.Carried(vm, from, at, meant)
}

// missing is the page for a name that leads nowhere.
var missing = template.Must(template.ParseFS(static, "static/missing.html"))

// handlePages answers with the page, and what it asks for.
func (p *Page) handlePages() http.Handler {
	mux := http.NewServeMux()
	for path, f := range files {
		text, err := static.ReadFile("static/" + f.name)
		if err != nil {
			panic(err) // it is a file of this package
		}
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", f.kind)
			_, _ = w.Write(text)
		})
	}
	mux.HandleFunc("POST /session", p.session)
	mux.Handle("/v1/", http.HandlerFunc(p.api))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Frame-Options", "DENY")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		harden(h)
		// A browser names the origin of what changes anything, and of what another site asks for.
		if origin := r.Header.Get("Origin"); origin != "" && origin != "http://"+strings.ToLower(r.Host) {
			refuse(w, http.StatusForbidden, "this is not for pages of "+origin)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// harden keeps an answer out of caches, of other sites and of where it would be taken for something else.
func harden(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
}

// refuse says in a line why there is nothing.
func refuse(w http.ResponseWriter, code int, text string) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	harden(h)
	w.WriteHeader(code)
	fmt.Fprintln(w, text)
}

// maxToken bounds what is read where a token is wanted, in bytes.
const maxToken = 256

// session gives the token of a session for that of a link.
func (p *Page) session(w http.ResponseWriter, r *http.Request) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(answerWithin))
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxToken))
	if err != nil {
		refuse(w, http.StatusBadRequest, "no token can be read")
		return
	}
	session, ok := p.tokens.session(string(text))
	if !ok {
		refuse(w, http.StatusUnauthorized, "this link was used already, or is too old")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]string{"session": session})
}

// api answers as the API does, to who has a session.
func (p *Page) api(w http.ResponseWriter, r *http.Request) {
	session, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || !p.tokens.use(session) {
		refuse(w, http.StatusUnauthorized, "this needs a session; get one with: rum-host-agent dashboard")
		return
	}
	p.API.ServeHTTP(w, r)
}

// ErrNotServed says that the page is not served, because something has its address.
var ErrNotServed = errors.New("the page is not served")

// Link is a URL of the page that opens a session, once and within a minute. It has a name of its own: whoever had
// the page's port before this agent may have left something in the browser for localhost, such as a service worker,
// that would see the page and its session.
func (p *Page) Link() (string, error) {
	st := p.Status()
	if st.State != status.Active {
		return "", fmt.Errorf("%w: %s", ErrNotServed, st.Reason)
	}
	// Where one of the addresses of localhost is not this agent's, it may be anybody's.
	host := st.Addresses[0]
	if len(st.Addresses) > 1 {
		host = fresh() + p.suffix
	}
	return "http://" + host + "/#" + p.tokens.link(), nil
}
