package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"

	"github.com/alecthomas/kingpin/v2"
)

// reloadCommand is `mcached reload`.
func reloadCommand(ctx context.Context, args []string, out io.Writer) error {
	app := kingpin.New("mcached reload", "Have a running daemon on this machine read its files again, and of an @file on its command line the flags that can change; prints what has changed.")
	var f apiFlags
	f.add(app, "1m")
	if _, err := app.Parse(args); err != nil {
		return usageError{err}
	}
	ctx, cancel := context.WithTimeout(ctx, f.timeout.std())
	defer cancel()
	res, err := f.ask(ctx, http.MethodPost, "/-/reload", nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	const maxNewsBytes = 1 << 20
	b, err := io.ReadAll(io.LimitReader(res.Body, maxNewsBytes))
	if err != nil {
		return err
	}
	var news reloadNews
	if json.Unmarshal(b, &news) != nil || news.Changed == nil {
		return answerError(res.Status, b)
	}
	for _, l := range news.Changed {
		fmt.Fprintf(out, "changed: %s\n", printable(l))
	}
	for _, l := range news.Restart {
		fmt.Fprintf(out, "needs a restart: %s\n", printable(l))
	}
	if len(news.Failed) > 0 {
		return errors.New(printable(strings.Join(news.Failed, "; ")))
	}
	if len(news.Changed)+len(news.Restart) == 0 {
		fmt.Fprintln(out, "Nothing has changed.")
	}
	return nil
}

// healthyCommand is `mcached healthy`.
func healthyCommand(ctx context.Context, args []string, out io.Writer) error {
	app := kingpin.New("mcached healthy", "Say whether the daemon on this machine answers, for a probe: exit code 0 if it does. Needs no password, and takes any certificate.")
	app.HelpFlag.Short('h')
	app.HelpFlag.NoEnvar()
	app.UsageWriter(os.Stdout)
	var f apiFlags
	var ready bool
	flag(app, "url", "The daemon; by default where MCACHED_WEB_LISTEN_ADDRESS and MCACHED_WEB_CONFIG_FILE say that it listens, or http://127.0.0.1:9201.").
		PlaceHolder("URL").StringVar(&f.url)
	app.Flag("ready", "Ask whether it serves, which it does not while it starts and stops.").BoolVar(&ready)
	flag(app, "timeout", "How long to wait for the answer.").Default("5s").SetValue(namedValue{&f.timeout, "timeout"})
	if _, err := app.Parse(args); err != nil {
		return usageError{err}
	}
	if f.url == "" {
		var err error
		if f.url, err = ownURL(); err != nil {
			return err
		}
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.Proxy, t.TLSClientConfig = nil, &tls.Config{InsecureSkipVerify: true} // nothing secret is sent or believed
	f.client = func() (*http.Client, error) { return &http.Client{Transport: t}, nil }
	path := "/-/healthy"
	if ready {
		path = "/-/ready"
	}
	b, err := f.get(ctx, path, nil)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, printable(strings.TrimSpace(string(b))))
	return err
}

// ownURL is where a daemon with the same environment is reached from this machine.
func ownURL() (string, error) {
	address, _, _ := strings.Cut(os.Getenv(variableOf("web.listen-address")), "\n")
	if address == "" {
		return "http://127.0.0.1:9201", nil
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", fmt.Errorf("%s is no address: %q", variableOf("web.listen-address"), address)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	scheme := "http"
	settings, err := readWebSettings(os.Getenv(variableOf("web.config.file")))
	if err == nil && settings.tls != nil {
		scheme = "https"
	}
	return scheme + "://" + net.JoinHostPort(host, port), nil
}
