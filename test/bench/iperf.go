package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// transferSlack is for what iperf3 does before and after a transfer; an emulated machine takes its time.
const transferSlack = time.Minute

// transfer measures throughput with iperf3, and for one stream the relay's processor time.
func transfer(o options, streams int, reverse bool) measure {
	rate, cpu := transferMetrics(streams, reverse)
	argv := []string{"iperf3", "-J", "-t", strconv.Itoa(o.seconds), "-P", strconv.Itoa(streams)}
	if reverse {
		argv = append(argv, "-R")
	}
	return func(ctx context.Context, t target) (sample, error) {
		ctx, cancel := context.WithTimeout(ctx, time.Duration(o.seconds)*time.Second+transferSlack)
		defer cancel()
		before, err := cpuSeconds(t.pids)
		if err != nil {
			return nil, err
		}
		out, err := output(ctx, append(argv, "-c", t.host, "-p", strconv.Itoa(t.ports.iperf))...)
		if ctx.Err() != nil {
			return nil, err
		}
		received, parseErr := parseIperf(out)
		if parseErr != nil {
			return nil, errors.Join(parseErr, err)
		}
		after, err := cpuSeconds(t.pids)
		if err != nil {
			return nil, err
		}
		s := sample{rate: received.BitsPerSecond / 1e9}
		if len(t.pids) > 0 && cpu != "" {
			s[cpu] = (after - before) / (received.Bytes / 1e9)
		}
		return s, nil
	}
}

func transferMetrics(streams int, reverse bool) (rate, cpu metric) {
	switch {
	case streams == 1 && !reverse:
		return forward1, cpuForward
	case streams == 1:
		return reverse1, cpuReverse
	case !reverse:
		return forward4, ""
	default:
		return reverse4, ""
	}
}

// iperfSum is what the receiving end counted.
type iperfSum struct {
	Bytes         float64 `json:"bytes"`
	BitsPerSecond float64 `json:"bits_per_second"`
}

func parseIperf(out []byte) (iperfSum, error) {
	var report struct {
		Error string `json:"error"`
		End   struct {
			SumReceived iperfSum `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal(out, &report); err != nil {
		return iperfSum{}, fmt.Errorf("iperf3 report: %w", err)
	}
	if report.Error != "" {
		return iperfSum{}, fmt.Errorf("iperf3: %s", report.Error)
	}
	if report.End.SumReceived.Bytes <= 0 {
		return iperfSum{}, errors.New("iperf3: nothing was received")
	}
	return report.End.SumReceived, nil
}
