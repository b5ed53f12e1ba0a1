package openurl

import (
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
)

var testHost = &thisHost{
	names: map[string]bool{"myhost": true, "ip6-localhost": true},
	addrs: map[netip.Addr]bool{netip.MustParseAddr("203.0.113.9"): true, netip.MustParseAddr("192.168.1.9"): true, netip.MustParseAddr("2001:db8::9"): true},
}

func TestAURLIsParsedAndWrittenAnew(t *testing.T) {
	for in, want := range map[string]string{
		"https://example.com":                               "https://example.com/",
		"HTTP://EXAMPLE.com:8080/a b":                       "",
		"https://example.com/ä?q=ü#ß":                       "https://example.com/%C3%A4?q=%C3%BC#%C3%9F",
		"https://example.com/?a=<b>\"'|":                    "https://example.com/?a=%3Cb%3E%22%27%7C",
		"https://example.com/$(id)?a=`id`":                  "https://example.com/%24%28id%29?a=%60id%60",
		"https://example.com/%2F%zz":                        "",
		"https://example.com/?a=%zz&b=%41":                  "https://example.com/?a=%25zz&b=%41",
		"https://bücher.example/":                           "https://xn--bcher-kva.example/",
		"https://аррӏе.com/":                                "https://xn--80ak6aa92e.com/",
		"https://EXAMPLE。com./":                             "https://example.com/",
		"https://example.com:0443/":                         "https://example.com:443/",
		"https://[2001:DB8::1]:8443/x":                      "https://[2001:db8::1]:8443/x",
		"https://user@example.com/":                         "",
		"https://example.com@evil.example/":                 "",
		"https://@example.com/":                             "",
		`https://example.com\@evil.example/`:                "",
		"https://example.com/\u202egpj.exe":                 "",
		`https://example.com/a\b`:                           "",
		"https://example.com/\x00":                          "",
		"https://example.com/\x7f":                          "",
		"https://example.com/\n":                            "",
		"https://example.com/\u00ad":                        "",
		"https://example.com/\xff":                          "",
		"file:///etc/passwd":                                "",
		"javascript:alert(1)":                               "",
		"ftp://example.com/":                                "",
		"vnc://localhost":                                   "",
		"https:example.com":                                 "",
		"https:///example.com":                              "",
		"//example.com/":                                    "",
		"-https://example.com/":                             "",
		"--version":                                         "",
		"":                                                  "",
		"https://":                                          "",
		"https://exa mple.com/":                             "",
		"https://a%80b/":                                    "",
		"https://exa%6dple.com/":                            "",
		"https://a..example/":                               "",
		"https://example.com:0/":                            "",
		"https://example.com:65536/":                        "",
		"https://[fe80::1%25eth0]/":                         "",
		"https://[127.0.0.1]/":                              "",
		"https://256.1.1.1/":                                "",
		"https://1.2.3.4.5/":                                "",
		"https://0x/":                                       "",
		"https://224.0.0.1/":                                "",
		"https://0.0.0.0/":                                  "",
		"https://0/":                                        "",
		"https://[::]/":                                     "",
		"https://255.255.255.255/":                          "",
		"https://example.com/" + strings.Repeat("a", 8<<10): "",
		"https://example.com/" + strings.Repeat("ä", 3<<10): "", // which is longer written out
		"https://" + strings.Repeat("a", 254) + "/":         "",
	} {
		got, err := parse(in, testHost)
		if (err == nil) != (want != "") || err == nil && got.text != want {
			t.Errorf("%q: %+v (%v), want %q", in, got, err, want)
		}
	}
}

// TestThisHostIsKnownHoweverItIsSpelled has what browsers take for this host, and for its network.
func TestThisHostIsKnownHoweverItIsSpelled(t *testing.T) {
	for want, hosts := range map[place][]string{
		loopback: {
			"localhost", "LOCALHOST", "localhost.", "a.localhost", "3000.dev.localhost", "ｌｏｃａｌｈｏｓｔ", "myhost", "MyHost.", "ip6-localhost",
			"127.0.0.1", "127.1", "127.0.1", "127.255.255.254", "127.0.0.1.", "2130706433", "017700000001", "0x7f000001", "0x7F.1", "0177.0.0.1",
			"0x7f.0.0.0x1", "１２７.0.0.1", "127。0。0。1", "[::1]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]",
			"[::127.0.0.1]", "[2002:7f00:1::]", "[64:ff9b::127.0.0.1]", "[2001:0:808:808:0:0:80ff:fffe]", "[2001:db8::5efe:127.0.0.1]", "[2001:db8::200:5efe:7f00:1]",
			"203.0.113.9", "0xcb007109", "192.168.1.9", "[2001:db8:0::9]", "[::ffff:203.0.113.9]", "[64:ff9b::203.0.113.9]", "[2002:cb00:7109::1]",
		},
		local: {
			"10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "0xa9fea9fe", "2852039166", "100.64.1.1", "[fe80::1]", "[fd00::1]", "[::ffff:10.0.0.1]", "[::ffff:100.64.1.1]",
			"[2002:a00:1::]", "[64:ff9b::10.0.0.1]", "[64:ff9b:1::8.8.8.8]", "[::192.168.1.1]", "router", "notlocalhost", "nas.local", "metadata.google.internal", "fritz.lan", "host.rum.internal", "x.home.arpa", "a.test",
		},
		internet: {"example.com", "localhost.example.com", "8.8.8.8", "134744072", "127.0.0.1.example.com", "[2606:4700::1]", "localhost.com", "203.0.113.10", "[2002:808:808::]", "[64:ff9b::8.8.8.8]"},
	} {
		for _, host := range hosts {
			got, err := parse("http://"+host+":3000/x", testHost)
			if err != nil || got.place != want {
				t.Errorf("%s: %+v (%v), want place %d", host, got, err, want)
			}
		}
	}
}

func portsOf(t *target) (all []uint16) {
	for _, c := range t.callbacks {
		all = append(all, c.port)
	}
	return all
}

func TestThePortOfACallbackIsFoundWhereverToolsPutIt(t *testing.T) {
	e := url.QueryEscape
	inner := "/login/oauth/authorize?client_id=1&redirect_uri=" + e("http://127.0.0.1:36511/callback")
	for in, want := range map[string][]uint16{
		"https://github.com/login/oauth/authorize?client_id=1&redirect_uri=http%3A%2F%2F127.0.0.1%3A36511%2Fcallback&state=x": {36511},
		"https://accounts.google.com/o/oauth2/auth?redirect_uri=http%3A%2F%2Flocalhost%3A8085%2F":                             {8085},
		"https://a.example/?redirect_uri=http://[::1]:8400":                                                                   {8400},
		"https://a.example/?redirect_uri=" + e(e("http://localhost:8250/cb")):                                                 {8250},
		"https://a.example/login?return_to=" + e(inner):                                                                       {36511},
		"https://a.example/login?return_to=" + e("https://a.example/again?return_to="+e(inner)):                               {36511},
		"https://a.example/?%72edirect_uri=http://localhost:9005":                                                             {9005},
		"https://a.example/?redirect_uri=http://localhost:9005&redirect_uri=http://localhost:9005":                            {9005},
		"https://a.example/?redirect_uri=http://localhost:9005&redirect_uri=http://localhost:9006":                            {9005, 9006},
		"https://a.example/?redirect_uri=http://x.localhost:9005":                                                             {9005},
		"https://a.example/?redirect_uri=https://b.example/cb":                                                                nil,
		"https://a.example/?redirect_uri=com.example.app:/cb":                                                                 nil,
		"https://a.example/?redirect_uri=urn:ietf:wg:oauth:2.0:oob":                                                           nil,
		"https://a.example/?redirect_url=http://localhost:9005":                                                               nil,
		"https://a.example/#redirect_uri=http://localhost:9005":                                                               nil,
	} {
		got, err := parse(in, testHost)
		if err != nil || !slices.Equal(portsOf(got), want) {
			t.Errorf("%s: %+v (%v), want %v", in, got, err, want)
		}
	}
	for _, in := range []string{
		"http://0.0.0.0:8080/", "http://user@localhost:8080/", "http://localhost:99999/",
	} {
		if got, err := parse("https://a.example/?redirect_uri="+e(in), testHost); err == nil {
			t.Errorf("back to %s: %+v", in, got)
		}
	}
	many := "https://a.example/?x=1"
	for _, port := range []string{"9001", "9002", "9003"} {
		many += "&redirect_uri=http://localhost:" + port
	}
	if _, err := parse(many, testHost); err == nil {
		t.Error("three callbacks")
	}
}

func TestNamesOfTheHostsFileAreThisHosts(t *testing.T) {
	here := &thisHost{names: make(map[string]bool), addrs: map[netip.Addr]bool{netip.MustParseAddr("203.0.113.9"): true}}
	here.readHosts(strings.NewReader("127.0.0.1 localhost Shop.Local # not.this\n::1 six\n10.0.0.1 other\n0.0.0.0 blocked.example.\nbad line\n203.0.113.9 big.example\n"))
	for name, want := range map[string]bool{
		"big.example": true, "shop.local": true, "six": true, "other": false, "blocked.example": true, "not.this": false, "line": false,
	} {
		if here.names[name] != want {
			t.Errorf("%s: %v", name, here.names[name])
		}
	}
}

// FuzzURL holds that what was taken is plain, is taken again as it is, and is where Go's own parser finds the same
// host; and that an address of this host is known as one.
func FuzzURL(f *testing.F) {
	for _, in := range []string{
		"https://example.com/a?b=c#d", "http://127.1:3000/", "https://bücher.example/?redirect_uri=http%3A%2F%2Flocalhost%3A8085", "http://[::ffff:127.0.0.1]/",
		"https://a/?x=%2Fy%3Fredirect_uri%3Dhttp%253A%252F%252F127.0.0.1%253A36511", "http://0x7f.1/", "https://a@b/", "https://１２７。0.0.1/\\",
	} {
		f.Add(in)
	}
	f.Fuzz(func(t *testing.T, in string) {
		got, err := parse(in, testHost)
		if err != nil {
			return
		}
		if strings.ContainsFunc(got.text, func(c rune) bool { return c <= ' ' || c > '~' || strings.ContainsRune("\\\"'$()<>^`{|}", c) }) || len(got.text) > 8<<10 {
			t.Fatalf("%q became %q", in, got.text)
		}
		if !strings.HasPrefix(got.text, "http://") && !strings.HasPrefix(got.text, "https://") {
			t.Fatalf("%q became %q", in, got.text)
		}
		u, err := url.Parse(got.text)
		if err != nil || u.User != nil || u.Hostname() != got.host {
			t.Fatalf("%q became %q, whose host is %q and not %q (%v)", in, got.text, u.Hostname(), got.host, err)
		}
		if addr, err := netip.ParseAddr(got.host); err == nil && addr.Unmap().IsLoopback() && got.place != loopback {
			t.Fatalf("%q: %+v", in, got)
		}
		again, err := parse(got.text, testHost)
		if err != nil || again.text != got.text || again.place != got.place || !slices.Equal(portsOf(again), portsOf(got)) {
			t.Fatalf("%q became %q, and that %+v (%v)", in, got.text, again, err)
		}
	})
}
