package gateway

import (
	"context"
	"errors"
	"fmt"
)

// call judges a command of the cloud and has it carried out. Each command is
// answered exactly once, a repeated one with the stored reply.
func (d *office) call(_ context.Context, dir *directory, m *Downlink) {
	k := &calling{office: d, dir: dir, message: m, who: byCloud + ":" + dir.user}
	if m.ID != "" && m.Err == nil {
		var again bool
		if k.entry, again = d.ledger.enter(dir.user, m); again {
			d.stats.Repeated.Add(1)
			// While it runs, its one reply is still to come.
			if reply := d.ledger.reply(k.entry); reply != nil {
				d.out[dir.user].answer(reply, k.entry, k.entry.busy)
			}
			return
		}
	}
	if err := k.begin(); err != nil {
		k.refuse(err)
	}
}

// calling is a command of the cloud from its arrival to its reply.
type calling struct {
	office  *office
	dir     *directory
	message *Downlink
	who     string
	entry   *entry // nil without an id
	command *command
	begun   bool
}

// begin makes all checks that need no bus, and starts the command.
func (k *calling) begin() error {
	m := k.message
	if m.Method != "" {
		k.command = k.dir.commands[m.Method]
	}
	if err := fitness(m); err != nil {
		return err
	}
	if k.command == nil {
		return fmt.Errorf("there is no command %s", short(m.Method))
	}
	with, err := k.command.weigh(k.who, m.Values)
	if err != nil {
		return err
	}
	o := k.command.operator
	if err := o.reachable(k.command.Preempt); err != nil {
		return err
	}
	x := &execution{command: k.command, who: k.who, id: m.ID, with: with, params: m.Values, arrived: m.Arrived, finished: k.finished}
	if k.entry != nil {
		x.begin = func() error {
			k.begun = true
			return k.office.ledger.begin(k.entry, o.device.Name, k.shown())
		}
	}
	return o.start(x)
}

// refuse answers a command that is not carried out. Of those that say busy,
// only some are answered in a flood.
func (k *calling) refuse(err error) {
	line := Audit{Who: k.who, Command: short(k.message.Method), ID: k.message.ID, Reason: err.Error()}
	if k.command != nil {
		line.Device = k.command.operator.device.Name
	}
	k.office.audit.refused(line)
	if k.message.Method == "" && k.message.ID == "" {
		return // nobody could tell what the reply is about
	}
	out := k.office.out[k.dir.user]
	reply := out.uplink.EncodeReply(&Reply{Method: k.message.Method, ID: k.message.ID, Params: k.shown(), Err: err})
	busy := errors.Is(err, errBusy)
	if k.entry != nil {
		k.entry.busy = busy
		_ = k.office.ledger.finish(k.entry, reply, false)
	}
	out.answer(reply, k.entry, busy)
}

// finished answers a command that was carried out, or failed on the way.
func (k *calling) finished(values []Attribute, result string, err error) {
	m, out := k.message, k.office.out[k.dir.user]
	line := Audit{Who: k.who, Device: k.command.operator.device.Name, Command: k.command.ID, ID: m.ID, Result: result}
	if err != nil {
		line.Reason = err.Error()
	}
	k.office.audit.add(line)
	r := &Reply{Method: m.Method, ID: m.ID, Params: k.shown(), Values: values, Err: err}
	reply := out.uplink.EncodeReply(r)
	if k.entry != nil {
		if failed := k.office.ledger.finish(k.entry, reply, k.begun); failed != nil && k.begun {
			r.Values = append(r.Values, Attribute{"warning", TextValue("the disk can't be written: a restart may forget this command")})
			reply = out.uplink.EncodeReply(r)
		}
	}
	out.put(reply, k.entry)
}

// shown are the parameters as they came, without secrets.
func (k *calling) shown() []Asked {
	if k.command == nil {
		return k.message.Values
	}
	return k.command.shown(k.message.Values)
}

func (c *command) shown(given []Asked) []Asked {
	shown := make([]Asked, len(given))
	for i, a := range given {
		if shown[i] = a; c.param(a.Name) != nil && c.param(a.Name).secret {
			shown[i].Raw = `"***"`
		}
	}
	return shown
}

// unknownOutcome is a write of which nobody knows whether it was carried out.
type unknownOutcome struct{ err error }

// Error is the reason.
func (u *unknownOutcome) Error() string { return "unknown outcome: " + u.err.Error() }

// Unwrap gives the reason.
func (u *unknownOutcome) Unwrap() error { return u.err }

// recover deals with what the last run, or the office before a reload, left:
// commands that were under way have an unknown outcome now, replies that may not
// have been sent are sent.
func (d *office) recover() {
	d.pulses.load()
	for _, e := range d.ledger.load() {
		out := d.out[e.User]
		if out == nil || e.Sent || e.busy {
			continue
		}
		reply := e.Reply
		if reply == nil {
			err := &unknownOutcome{errors.New("the gateway was restarted while the command was under way")}
			var params []Asked
			for _, p := range e.Params {
				params = append(params, Asked{Name: p.Name, Raw: p.Raw})
			}
			reply = out.uplink.EncodeReply(&Reply{Method: e.Method, ID: string(e.ID), Params: params, Err: err})
			if err := d.ledger.finish(e, reply, true); err != nil {
				d.log.Error("reply not stored", "user", e.User, "command", e.Method, "error", err)
			}
			d.audit.add(Audit{Who: byCloud + ":" + e.User, Device: e.Device, Command: e.Method, ID: string(e.ID), Result: "unknown", Reason: err.Error()})
		}
		out.put(reply, e)
	}
}
