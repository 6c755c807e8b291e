package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/sys/unix"
)

// A stepLine is one line of --progress json for work that is no transfer.
type stepLine struct {
	Event string `json:"event"` // the verb
	Done  int64  `json:"done"`
	Total int64  `json:"total"` // 0 if nobody knows
}

// progressPause is how often progress is told.
const progressPause = 100 * time.Millisecond

// A meter shows how far long work is, in the way that was asked for. Its methods may be called from several goroutines.
type meter struct {
	mu   sync.Mutex
	what string
	json *json.Encoder
	bars *mpb.Progress
	bar  *mpb.Bar
	last time.Time
	line stepLine
	told stepLine
}

// newMeter starts showing the progress of a verb.
func (a *app) newMeter(what string) *meter {
	m := &meter{what: what}
	switch {
	case a.progress == "json":
		m.json = json.NewEncoder(a.errOut)
	case a.progress == "auto" && isTerminal(a.errOut):
		m.bars = mpb.New(mpb.WithOutput(a.errOut), mpb.WithWidth(40))
	}
	return m
}

// set says how much is done of how much.
func (m *meter) set(done, total int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.line = stepLine{m.what, done, total}
	switch {
	case m.json != nil:
		if time.Since(m.last) >= progressPause {
			m.print()
		}
	case m.bars != nil:
		if m.bar == nil {
			m.bar = m.bars.AddBar(total, mpb.PrependDecorators(decor.Name(m.what+" ")), mpb.AppendDecorators(decor.CountersNoUnit("%d / %d")))
		}
		m.bar.SetTotal(total, false)
		m.bar.SetCurrent(done)
	}
}

func (m *meter) print() {
	m.last, m.told = time.Now(), m.line
	_ = m.json.Encode(m.line)
}

// stop ends it; what was done last is told. It may be called again.
func (m *meter) stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.json != nil && m.told != m.line {
		m.print()
	}
	if m.bar != nil && !m.bar.Completed() {
		if m.line.Done == m.line.Total {
			m.bar.SetTotal(-1, true)
		} else {
			m.bar.Abort(false)
		}
	}
	if m.bars != nil {
		m.bars.Wait()
	}
	m.json, m.bars, m.bar = nil, nil, nil
}

// tell says something on standard error before or during long work.
func (a *app) tell(text string) {
	switch a.progress {
	case "none":
	case "json":
		_ = json.NewEncoder(a.errOut).Encode(struct {
			Event string `json:"event"`
			Text  string `json:"text"`
		}{"message", text})
	default:
		fmt.Fprintln(a.errOut, text)
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
