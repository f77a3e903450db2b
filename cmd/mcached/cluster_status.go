package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"mcached/ingest/cluster"
)

// clusterNews is the data of /api/v1/status/cluster: the cluster as this member
// sees it.
type clusterNews struct {
	Name    string       `json:"name"`
	Copies  int          `json:"copies"`
	Version uint64       `json:"version"` // of the table
	Short   int          `json:"shortSlots"`
	Members []memberNews `json:"members"`
}

type memberNews struct {
	Name    string  `json:"name"`
	Self    bool    `json:"self,omitempty"`
	State   string  `json:"state"`
	Suspect bool    `json:"suspect,omitempty"` // it does not answer the one that was asked
	Differs bool    `json:"differs,omitempty"` // it is configured otherwise than all must be
	Zone    string  `json:"zone,omitempty"`
	HTTP    string  `json:"http"`
	RESP    string  `json:"resp,omitempty"`
	Version string  `json:"version"`
	Started float64 `json:"started"` // Unix seconds
	Share   float64 `json:"share"`   // of the series' slots, copies included
	Keys    float64 `json:"keys"`    // share of the Redis keys' slots
	Lag     float64 `json:"lag"`     // seconds that the oldest sample waits to be sent there; -1 for the member itself
	RTT     float64 `json:"rtt"`     // seconds of the last probe that it answered; -1 for none
	Clock   float64 `json:"clock"`   // seconds that its clock was ahead then
}

// news describes the cluster, by the last table that both doors act by: who reads
// that a member left is not sent to it any more. lag says how long the oldest sample
// has waited to be sent to a member.
func (n *node) news(name string, lag func(id string) time.Duration) clusterNews {
	t := n.shown.Load()
	s := n.Stats()
	_, any := t.Owns()
	keys := t.OwnsKeys()
	suspects := map[string]bool{}
	for _, id := range n.Suspects() {
		suspects[id] = true
	}
	self := n.Self()
	news := clusterNews{Name: name, Copies: t.Layout.Copies, Version: t.Version, Short: s.ShortSlots}
	for i, m := range t.Members() {
		p, probed := n.Probe(m.ID)
		r := memberNews{Name: m.Name, Self: i == t.Self(), State: m.State.String(), Suspect: suspects[m.ID], Differs: m.Otherwise(self) != "", Zone: m.Zone,
			HTTP: m.HTTP, RESP: m.RESP, Version: m.Version, Started: float64(m.Start()) / 1000,
			Share: float64(any[i]) / float64(cluster.Slots*max(t.Copies(), 1)), Keys: float64(keys[i]) / cluster.Slots, Lag: -1, RTT: -1}
		if probed {
			r.RTT, r.Clock = p.RTT.Seconds(), p.ClockAhead.Seconds()
		}
		if !r.Self {
			r.Lag = lag(m.ID).Seconds()
		}
		news.Members = append(news.Members, r)
	}
	return news
}

// serveCluster answers /api/v1/status/cluster; 404 from a daemon that is alone.
func (d *daemon) serveCluster(w http.ResponseWriter, _ *http.Request) {
	if d.node == nil {
		http.Error(w, "mcached: this daemon is not one of a cluster: --cluster.join makes it one", http.StatusNotFound)
		return
	}
	answerJSON(w, http.StatusOK, map[string]any{"status": "success", "data": d.node.news(d.config.cluster.name, d.router.Lag)})
}

// clusterCommand is `mcached cluster`.
func clusterCommand(ctx context.Context, args []string, out io.Writer) error {
	app := kingpin.New("mcached cluster", "Show the members of a running daemon's cluster, as it sees them: what each owns, and how far behind it is.")
	var f apiFlags
	f.add(app, "10s")
	if _, err := app.Parse(args); err != nil {
		return usageError{err}
	}
	b, err := f.get(ctx, "/api/v1/status/cluster", nil)
	if err != nil {
		if s := (statusError{}); errors.As(err, &s) && s.code == http.StatusNotFound {
			return fmt.Errorf("%s is not one of a cluster", f.url)
		}
		return err
	}
	var a struct{ Data clusterNews }
	if err := json.Unmarshal(b, &a); err != nil || len(a.Data.Members) == 0 {
		return fmt.Errorf("the answer of %s is not that of a cluster's member", f.url)
	}
	return a.Data.write(out, time.Now())
}

// write prints the table of the time now.
func (n *clusterNews) write(out io.Writer, now time.Time) error {
	fmt.Fprintf(out, "Cluster %s: %d members, %d copies, table %d", printable(n.Name), len(n.Members), n.Copies, n.Version)
	if n.Short > 0 {
		fmt.Fprintf(out, "; %d of %d slots have fewer copies that are ready", n.Short, cluster.Slots)
	}
	fmt.Fprint(out, "\n\n")
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "MEMBER\tSTATE\tSERIES\tKEYS\tLAG\tRTT\tZONE\tHTTP\tREDIS\tVERSION\tUP FOR")
	for _, m := range n.Members {
		name, state := printable(m.Name), m.State
		if m.Self {
			name += " *"
		}
		if m.Suspect {
			state += ", suspect"
		}
		if m.Differs {
			state += ", configured otherwise"
		}
		if clock := time.Duration(m.Clock * float64(time.Second)).Round(time.Second); clock != 0 {
			state += fmt.Sprintf(", clock %+.0f s", clock.Seconds())
		}
		// It began by its own clock, which may have been set since.
		up := max(now.Sub(time.UnixMilli(int64((m.Started-m.Clock)*1000))).Round(time.Second), 0)
		fmt.Fprintf(w, "%s\t%s\t%.1f %%\t%.1f %%\t%s\t%s\t%s\t%s\t%s\t%s\t%v\n", name, state, 100*m.Share, 100*m.Keys, orDash(m.Lag), orDash(m.RTT),
			dash(m.Zone), printable(m.HTTP), dash(m.RESP), printable(m.Version), up)
	}
	return w.Flush()
}

// orDash shows seconds; less than none is unknown.
func orDash(seconds float64) string {
	if seconds < 0 {
		return "-"
	}
	return time.Duration(seconds * float64(time.Second)).Round(100 * time.Microsecond).String()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return printable(s)
}
