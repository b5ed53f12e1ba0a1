package nat

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// legacyPatience is how long the program that prints the older iptables' rules may take.
const legacyPatience = 5 * time.Second

// legacyTable is its table of translations, by chain: a rule each, in words.
type legacyTable map[string][][]string

// legacy follows the rules of the older iptables. The kernel tells of them neither by
// netlink nor in events, and the form in which it hands them out differs by release, so
// that they are read from the program that wrote them.
func (w *walker) legacy() {
	for _, family := range []struct{ names, program string }{
		{"/proc/net/ip_tables_names", "iptables"}, {"/proc/net/ip6_tables_names", "ip6tables"},
	} {
		names, err := os.ReadFile(family.names)
		if err != nil || !slices.Contains(strings.Fields(string(names)), "nat") {
			continue // as it is nearly everywhere
		}
		rules, err := readLegacy(family.program)
		if err != nil {
			w.err = fmt.Errorf("the rules of the older %s are not read: %w", family.program, err)
			continue
		}
		w.incoming = false
		w.walkLegacy(rules, "OUTPUT", match{}, 0)
		if w.incoming = w.everything; w.incoming {
			w.walkLegacy(rules, "PREROUTING", match{}, 0)
		}
	}
}

// readLegacy runs the program that prints the rules. Where both kinds of iptables are
// installed its name says which it is.
func readLegacy(program string) (legacyTable, error) {
	path, err := exec.LookPath(program + "-legacy-save")
	if err != nil {
		if path, err = exec.LookPath(program + "-save"); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), legacyPatience)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "-t", "nat").Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	rules := make(legacyTable)
	for line := range strings.Lines(string(out)) {
		if words := splitWords(line); len(words) > 2 && words[0] == "-A" {
			rules[words[1]] = append(rules[words[1]], words[2:])
		}
	}
	return rules, nil
}

// splitWords splits a line as iptables-save writes it: what has blanks in it is between
// double quotes, with a backslash before those that are meant.
func splitWords(line string) (words []string) {
	var word strings.Builder
	began, quoted, escaped := false, false, false
	for _, r := range strings.TrimSpace(line) {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\':
			escaped, began = true, true
		case r == '"':
			quoted, began = !quoted, true
		case r == ' ' && !quoted:
			if began {
				words = append(words, word.String())
			}
			word.Reset()
			began = false
		default:
			word.WriteRune(r)
			began = true
		}
	}
	if began {
		words = append(words, word.String())
	}
	return words
}

// walkLegacy is walk for a chain of the older iptables.
func (w *walker) walkLegacy(rules legacyTable, chain string, m match, depth int) {
	if depth > maxJumps {
		w.say("nat %s: more than %d jumps lead there", chain, maxJumps)
		return
	}
	for _, words := range rules[chain] {
		if w.full() {
			return
		}
		p := packet{walker: w, table: &nftables.Table{Name: "nat"}, chain: chain, depth: depth, match: m}
		p.runLegacy(rules, words)
	}
}

// runLegacy goes through the words of a rule until one of its conditions is not met.
func (p *packet) runLegacy(rules legacyTable, words []string) {
	target, to := "", ""
	for i := 0; i+1 < len(words); i++ {
		inverted := words[i] == "!"
		if inverted {
			i++
		}
		if i+1 >= len(words) {
			return
		}
		option, value, ok := words[i], words[i+1], true
		switch option {
		case "-i":
			ok = p.incoming || inverted
		case "-p":
			ok = inverted || p.within(protocol, []byte{protocolNumbers[value]}, nil)
		case "-d":
			if a, err := netip.ParsePrefix(value); err == nil && a.IsSingleIP() && !inverted {
				ok = p.within(daddr, a.Addr().AsSlice(), a.Addr().AsSlice())
			}
		case "--dport", "--dports", "--ports":
			ok = inverted || p.narrow(legacyPorts(value)...)
		case "-j", "-g":
			target = value
		case "--to-destination":
			to = value
		default:
			continue // what follows may be a word of its own
		}
		if !ok {
			return
		}
		i++
	}
	if target == "DNAT" {
		p.addLegacy(to)
	} else if _, chain := rules[target]; chain {
		p.walkLegacy(rules, target, p.match, p.depth+1)
	}
}

// addLegacy notes a translation to "ADDRESS", "ADDRESS:PORT" or "[ADDRESS]:PORT", of ranges to the first.
func (p *packet) addLegacy(to string) {
	to, _, _ = strings.Cut(to, "-")
	if at, err := netip.ParseAddrPort(to); err == nil {
		p.add(at.Addr(), at.Port())
		return
	}
	addr, _ := netip.ParseAddr(strings.Trim(to, "[]"))
	p.add(addr, 0)
}

var protocolNumbers = map[string]byte{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP}

// legacyPorts reads "80", "80:90" and lists of those.
func legacyPorts(text string) (all []ports) {
	for part := range strings.SplitSeq(text, ",") {
		from, to, isRange := strings.Cut(part, ":")
		if !isRange {
			to = from
		}
		first, err1 := strconv.ParseUint(from, 10, 16)
		last, err2 := strconv.ParseUint(to, 10, 16)
		if err1 == nil && err2 == nil {
			all = append(all, ports{uint16(first), uint16(last)})
		}
	}
	return all
}
