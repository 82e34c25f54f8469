// Command streamclient speaks to a server of streaming protocols with client-go, as kubectl does.
//
//	streamclient exec -url URL [-transport spdy|websocket] [-protocols LIST] [-stdin] [-stdout] [-stderr] [-tty] [-sizes LIST]
//	streamclient portforward -url URL [-transport spdy|tunnel] [-ports LIST]
//
// exec connects its own standard streams, and writes the outcome as the last line of its standard error. portforward prints
// client-go's lines ("Forwarding from …") and runs until its standard input ends.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/exec"
)

var (
	address   = flag.String("url", "", "where the server is, with path and query")
	transport = flag.String("transport", "spdy", "spdy, websocket (exec) or tunnel (portforward)")
	protocols = flag.String("protocols", "", "what exec offers; client-go's own choice by default")
	stdin     = flag.Bool("stdin", false, "send standard input")
	stdout    = flag.Bool("stdout", false, "receive standard output")
	stderr    = flag.Bool("stderr", false, "receive standard error")
	tty       = flag.Bool("tty", false, "ask for a terminal")
	sizes     = flag.String("sizes", "", "sizes that the terminal takes, as 80x24,100x30")
	ports     = flag.String("ports", "", "what is forwarded, as :80,:81")
)

func main() {
	if len(os.Args) < 2 {
		fail(errors.New("usage: streamclient exec|portforward -url URL ..."))
	}
	_ = flag.CommandLine.Parse(os.Args[2:])
	location, err := url.Parse(*address)
	fail(err)
	config := &rest.Config{Host: location.Scheme + "://" + location.Host}
	switch os.Args[1] {
	case "exec":
		executor, err := executor(config, location)
		fail(err)
		report(executor.StreamWithContext(context.Background(), options()))
	case "portforward":
		fail(forward(config, location))
	default:
		fail(fmt.Errorf("no command %q", os.Args[1]))
	}
}

func executor(config *rest.Config, location *url.URL) (remotecommand.Executor, error) {
	var offered []string
	if *protocols != "" {
		offered = strings.Split(*protocols, ",")
	}
	if *transport == "websocket" {
		if offered == nil {
			return remotecommand.NewWebSocketExecutor(config, "GET", location.String())
		}
		return remotecommand.NewWebSocketExecutorForProtocols(config, "GET", location.String(), offered...)
	}
	if offered == nil {
		return remotecommand.NewSPDYExecutor(config, "POST", location)
	}
	roundTripper, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return nil, err
	}
	return remotecommand.NewSPDYExecutorForProtocols(roundTripper, upgrader, "POST", location, offered...)
}

func options() remotecommand.StreamOptions {
	options := remotecommand.StreamOptions{Tty: *tty}
	if *stdin {
		options.Stdin = os.Stdin
	}
	if *stdout {
		options.Stdout = os.Stdout
	}
	if *stderr {
		options.Stderr = os.Stderr
	}
	if *sizes != "" {
		options.TerminalSizeQueue = &queue{strings.Split(*sizes, ",")}
	}
	return options
}

type queue struct{ sizes []string }

// Next blocks after the last size, as a terminal that is not resized any more.
func (q *queue) Next() *remotecommand.TerminalSize {
	if len(q.sizes) == 0 {
		select {}
	}
	size := &remotecommand.TerminalSize{}
	_, err := fmt.Sscanf(q.sizes[0], "%dx%d", &size.Width, &size.Height)
	fail(err)
	q.sizes = q.sizes[1:]
	return size
}

func report(err error) {
	var exit exec.CodeExitError
	switch {
	case err == nil:
		fmt.Fprintln(os.Stderr, "outcome: success")
	case errors.As(err, &exit):
		fmt.Fprintf(os.Stderr, "outcome: exit %d\n", exit.Code)
	default:
		fmt.Fprintf(os.Stderr, "outcome: error: %v\n", err)
	}
}

func forward(config *rest.Config, location *url.URL) error {
	stop := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(stop)
	}()
	forwarded := strings.Split(*ports, ",")
	if *transport == "tunnel" {
		dialer, err := portforward.NewSPDYOverWebsocketDialer(location, config)
		if err != nil {
			return err
		}
		forwarder, err := portforward.New(dialer, forwarded, stop, nil, os.Stdout, os.Stderr)
		if err != nil {
			return err
		}
		return forwarder.ForwardPorts()
	}
	roundTripper, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return err
	}
	dialer := spdy.NewDialer(upgrader, &http.Client{Transport: roundTripper}, "POST", location)
	forwarder, err := portforward.New(dialer, forwarded, stop, nil, os.Stdout, os.Stderr)
	if err != nil {
		return err
	}
	return forwarder.ForwardPorts()
}

func fail(err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "outcome: error: %v\n", err)
		os.Exit(1)
	}
}
