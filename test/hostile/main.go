package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"
)

// Bounds of what it may cost.
const (
	maxPeak  = 100  // MiB
	maxCPU   = 0.25 // of a processor
	maxLines = 100  // of its log, in a minute or less
	maxRatio = 1.5  // of the honest guest's times beside the same flood into a sink
)

func init() { runtime.LockOSThread() } // children die with the thread that started them

func main() {
	ctx := context.Background()
	if name := os.Getenv(role); name == "" || name == "inside" {
		var stop func()
		ctx, stop = signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
		defer stop()
	}
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "hostile:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	switch name := os.Getenv(role); name {
	case "":
		cmd := self(ctx, "inside", true, args...)
		cmd.Stdout = os.Stdout
		return cmd.Run()
	case "inside":
		return inside(ctx, args)
	default:
		return part(name, args)
	}
}

func inside(ctx context.Context, args []string) error {
	flags := pflag.NewFlagSet("hostile", pflag.ContinueOnError)
	bin := flags.String("bin", "bin", "`DIR` with the agents")
	seconds := flags.Int("seconds", 20, "how long each mode is measured")
	rounds := flags.Int("rounds", 1, "how often, in turns with the sink; the table has medians")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := loopbackUp(); err != nil {
		return err
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "MODE\tPEAK MiB <%d\tCPU <%.0f%%\tLINES <=%d\tROUND TRIP <%.1f\tNEW PORT <%.1f\tVERDICT\n", maxPeak, 100*maxCPU, maxLines, maxRatio, maxRatio)
	failed := 0
	for _, m := range modes() {
		if flags.NArg() > 0 && !slices.Contains(flags.Args(), m.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "%s\n", m.name)
		var evil, sink []result
		for range *rounds {
			for _, hostile := range []bool{false, true} {
				r, err := measure(ctx, *bin, m, hostile, time.Duration(*seconds)*time.Second)
				if err != nil {
					return fmt.Errorf("%s: %w", m.name, err)
				}
				if hostile {
					evil = append(evil, r)
				} else {
					sink = append(sink, r)
				}
			}
		}
		if !report(table, m, evil, sink) {
			failed++
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if flags.NArg() == 0 || slices.Contains(flags.Args(), crowdName) {
		fmt.Fprintln(os.Stderr, crowdName)
		of := func(apart bool) (crowdResult, error) {
			return measureCrowd(ctx, *bin, crowdVMs, time.Duration(*seconds)*time.Second, apart)
		}
		apart, err := of(true)
		if err != nil {
			return fmt.Errorf("%s: %w", crowdName, err)
		}
		r, err := of(false)
		if err != nil {
			return fmt.Errorf("%s: %w", crowdName, err)
		}
		fmt.Println(r.beside(apart))
		if bad := r.bad(apart); len(bad) > 0 {
			fmt.Println("  beyond its bounds:", strings.Join(bad, ", "))
			failed++
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d modes are beyond a bound", failed)
	}
	return nil
}

// report writes a line of the table, and tells whether all bounds held.
func report(w *tabwriter.Writer, m mode, evil, sink []result) bool {
	of := func(all []result, f func(result) float64) float64 {
		var v []float64
		for _, r := range all {
			v = append(v, f(r))
		}
		slices.Sort(v)
		return v[len(v)/2]
	}
	ratio := func(f func(result) float64) float64 { return of(evil, f) / of(sink, f) }
	peak := of(evil, func(r result) float64 { return float64(r.peak) })
	cpu := of(evil, func(r result) float64 { return r.cpu })
	lines := of(evil, func(r result) float64 { return float64(r.lines) })
	trip := ratio(func(r result) float64 { return float64(r.trip) })
	port := ratio(func(r result) float64 { return float64(r.port) })
	unserved := of(evil, func(r result) float64 { return float64(r.unserved) })
	var bad []string
	for _, b := range []struct {
		what string
		is   bool
	}{
		{"memory", peak >= maxPeak}, {"cpu", cpu >= maxCPU}, {"log", lines > maxLines},
		{"round trip", !(trip < maxRatio)}, {"new port", !(port < maxRatio)}, {"unserved", unserved > 0},
	} {
		if b.is {
			bad = append(bad, b.what)
		}
	}
	verdict := "ok"
	if len(bad) > 0 {
		verdict = strings.Join(bad, ", ")
	}
	fmt.Fprintf(w, "%s\t%.0f\t%.1f%%\t%.0f\t%.2f\t%.2f\t%s\n", m.name, peak, 100*cpu, lines, trip, port, verdict)
	return len(bad) == 0
}
