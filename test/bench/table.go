package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// column is one metric of a table.
type column struct {
	head   string
	metric metric
}

// table is a group of metrics that loopback has too, or that only relays have.
type table struct {
	title   string
	columns []column
	against bool // compared with loopback
}

var throughput = table{
	title:   "Throughput in Gbit/s (in brackets: divided by loopback's); forward is towards the guest",
	against: true,
	columns: []column{
		{"1 stream fwd", forward1}, {"1 stream rev", reverse1}, {"4 streams fwd", forward4}, {"4 streams rev", reverse4},
	},
}

var udpTable = table{
	title: "UDP (in brackets: divided by loopback's): 64-byte round trips in microseconds in turns with TCP's, and how many times as\n" +
		"long those of UDP take; what arrives of 100,000 datagrams of 200 bytes a second, one way; answers to 10,000 questions a\n" +
		"second over 16 sockets; a download of 100 MB over HTTP/3 in Gbit/s",
	against: true,
	columns: []column{
		{"p50", udpP50}, {"p99", udpP99}, {"TCP p50", besideP50}, {"UDP/TCP", udpOverTCP},
		{"arrive", floodArrived}, {"answered", queriesAnswered}, {"HTTP/3", http3Rate},
	},
}

var besideTable = table{
	title: "How many times longer a round trip takes beside another connection (in brackets: divided by loopback's): one with bulk\n" +
		"either way, and one with 64-byte messages towards the guest, as fast as they are taken",
	against: true,
	columns: []column{{"bulk fwd", besideForward}, {"bulk rev", besideReverse}, {"messages", besideFlood}},
}

var tables = []table{
	throughput,
	{
		title: "64-byte round trip in microseconds (in brackets: divided by loopback's): where the kernel puts the ends, and with\n" +
			"both on one processor and on two",
		against: true,
		columns: []column{{"p50", rttP50}, {"p99", rttP99}, {"p50, one cpu", rttOneCPU}, {"p50, two cpus", rttTwoCPUs}},
	},
	besideTable,
	udpTable,
	{
		title:   "New connections per second (in brackets: divided by loopback's)",
		against: true,
		columns: []column{{"1 worker", connRate1}, {"8 workers", connRate8}},
	},
	{
		title: "Cost of the relay's own processes: CPU seconds per GB (1 stream), memory in KiB per idle connection;\n" +
			"how many times longer a round trip takes beside a stalled reader; context switches per second of one process at ten\n" +
			"round trips per second",
		columns: []column{
			{"cpu/GB fwd", cpuForward}, {"cpu/GB rev", cpuReverse}, {"KiB/idle", idleKiB}, {"idle held", idleCount}, {"stalled x", stall},
			{"switches/s", slowSwitches},
		},
	},
	{
		title:   "Requests per second of a web server, by 16 connections that stay: through its forward, and by name",
		columns: []column{{"forward", requests}, {"by name", requestsByName}, {"of it", byNameRatio}},
	},
}

// vsockTables is what makes sense where the guest is another machine, or an emulated one.
var vsockTables = []table{
	throughput,
	{
		title:   "64-byte round trip in microseconds (in brackets: divided by loopback's)",
		against: true,
		columns: []column{{"p50", rttP50}, {"p99", rttP99}},
	},
	besideTable,
	{
		title: "What the kernel counts for each MB towards the guest, on one kernel for both: packets with bytes, shares of the bytes in\n" +
			"packets of 60 KiB or more, of 16 or more, and of less; credit updates; the relay's system calls and wake-ups",
		columns: []column{
			{"packets", packetsForward}, {"60 KiB", fullForward}, {"16 KiB", midForward}, {"less", lowForward},
			{"credit", creditsForward}, {"calls", callsForward}, {"wake-ups", wakesForward},
		},
	},
	{
		title: "The same for each MB from the guest",
		columns: []column{
			{"packets", packetsReverse}, {"60 KiB", fullReverse}, {"16 KiB", midReverse}, {"less", lowReverse},
			{"credit", creditsReverse}, {"calls", callsReverse}, {"wake-ups", wakesReverse},
		},
	},
	{
		title:   "The same for each round trip",
		columns: []column{{"packets", packetsTrip}, {"credit", creditsTrip}, {"calls", callsTrip}, {"wake-ups", wakesTrip}},
	},
}

func printTables(w io.Writer, r *results) {
	printMachine(w, r)
	for _, t := range r.tables {
		t.print(w, r)
	}
	if len(r.goals) > 0 {
		printGoals(w, r)
	}
	if m, factor := r.unrest(); factor > restless {
		fmt.Fprintf(w, "\nThe machine was not quiet: %s of loopback itself moved by a factor of %.1f. Repeat before believing a ratio.\n", m, factor)
	}
	for _, f := range r.Failures {
		fmt.Fprintf(w, "\nnot measured: %s: %s\n", f.Relay, f.Error)
	}
}

func printMachine(w io.Writer, r *results) {
	m := r.Machine
	fmt.Fprintf(w, "%s, %d cores, Linux %s, load %.2f at the start\n", m.CPU, m.Cores, m.Kernel, m.Load)
	var versions []string
	for _, tool := range slices.Sorted(maps.Keys(m.Versions)) {
		versions = append(versions, tool+" "+m.Versions[tool])
	}
	fmt.Fprintf(w, "%s\n", strings.Join(versions, ", "))
	fmt.Fprintf(w, "median of %d, transfers of %d s, each compared with loopback just before it\n", r.Rounds, r.Seconds)
}

func (t table) print(w io.Writer, r *results) {
	fmt.Fprintf(w, "\n%s\n", t.title)
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	defer tw.Flush()
	row := func(title string, cell func(column) string) {
		fmt.Fprintf(tw, "  %s", title)
		for _, c := range t.columns {
			fmt.Fprintf(tw, "\t%s", cell(c))
		}
		fmt.Fprintln(tw)
	}
	row("", func(c column) string { return c.head })
	if t.against {
		row("loopback", func(c column) string {
			middle, ok := median(r.loopback(c.metric))
			return number(middle, ok)
		})
		row("  lowest, highest", func(c column) string {
			all := r.loopback(c.metric)
			if len(all) == 0 {
				return "-"
			}
			return number(all[0], true) + ", " + number(all[len(all)-1], true)
		})
	}
	for _, relay := range r.Relays {
		row(cmp.Or(r.titles[relay], relay), func(c column) string {
			value, ok := r.value(relay, c.metric)
			cell := number(value, ok)
			if ratio, ok := r.ratio(relay, c.metric); ok && t.against {
				cell += fmt.Sprintf(" (%.2f)", ratio)
			}
			return cell
		})
	}
}

func printGoals(w io.Writer, r *results) {
	fmt.Fprintf(w, "\nGoals, on a machine with 2 cores\n")
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	defer tw.Flush()
	for _, g := range r.goals {
		bound := "at least"
		if g.atMost {
			bound = "at most"
		}
		value, ok, measured := g.reached(r)
		verdict := "short"
		switch {
		case !measured:
			verdict = "not measured"
		case ok:
			verdict = "ok"
		}
		fmt.Fprintf(tw, "  %s\t%s %g\t%s\t%s\n", g.text, bound, g.limit, number(value, measured), verdict)
	}
}

// number prints three significant digits, which is more than a repeat on the same machine agrees on.
func number(v float64, ok bool) string {
	switch {
	case !ok:
		return "-"
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}
