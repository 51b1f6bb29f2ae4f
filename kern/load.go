package kern

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"kipsec/ipsec/key"
	"kipsec/ipsec/knob"
	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/setkey"
	"kipsec/kern/sysctl"
)

// LoadVariables sets the variables of a file with lines "name = value". The first line that fails ends it.
func (k *Kernel) LoadVariables(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	for setting, err := range sysctl.ReadConf(f) {
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if err := k.Tree.Set(setting.Name, setting.Value); err != nil && !setting.IgnoreError {
			return fmt.Errorf("%s,%d: %w", file, setting.Line, err)
		}
	}
	return nil
}

// LoadScript runs a setkey script within the process. Any error, also one of a single command, is returned.
func (k *Kernel) LoadScript(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	answers := &memory{}
	socket := k.Key.Attach(answers)
	defer socket.Close()
	return setkey.Run(f, file, func(m *pfkey.Message, reply func(*pfkey.Message) error) error {
		answers.messages = answers.messages[:0]
		socket.Handle(m.AppendTo(nil))
		for _, raw := range answers.messages {
			answer, err := pfkey.Parse(raw)
			if err != nil {
				return err
			}
			if err := reply(answer); err != nil {
				return err
			}
		}
		return nil
	}, setkey.Options{Explain: k.Explain})
}

// memory collects what the key engine sends to a client within the process.
type memory struct{ messages [][]byte }

// Send implements key.Sink.
func (m *memory) Send(b []byte) bool { return m.SendWait(b) == nil }

// SendWait implements key.Sink.
func (m *memory) SendWait(b []byte) error {
	if len(m.messages) == maxAnswers {
		return errors.New("too many answers")
	}
	m.messages = append(m.messages, append([]byte(nil), b...))
	return nil
}

// maxAnswers bounds what a script at start may ask to be told.
const maxAnswers = 1 << 16

// addDumps puts the dumps of SADB and SPD into the tree.
func (k *Kernel) addDumps() error {
	return k.Tree.Add(knob.Dumps(
		func() string { return string(k.Key.AppendSAs(nil)) },
		func() string { return string(k.Key.AppendPolicies(nil)) },
	)...)
}

// addKeyStats puts the counters of PF_KEY into the tree.
func (k *Kernel) addKeyStats() error {
	const tree = "net.key.stats."
	for _, f := range key.Fields() {
		read := func() string { return strconv.FormatUint(k.Key.Stats.Get(f), 10) }
		if err := k.Tree.Add(sysctl.NewFunc(tree+f.String(), f.Doc(), read)); err != nil {
			return err
		}
	}
	for _, h := range key.Histograms() {
		read := func() string { return k.Key.Stats.Text(h) }
		if err := k.Tree.Add(sysctl.NewFunc(tree+h.String(), "PF_KEY messages by number: "+h.String(), read)); err != nil {
			return err
		}
	}
	return nil
}
