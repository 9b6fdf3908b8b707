package opcua

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/url"
	"sync"
	"time"

	"github.com/gopcua/opcua/ua"
	"github.com/gopcua/opcua/uapolicy"
)

// channel is a secure channel to a server. The library has one too, but what
// it reads there is decoded without bounds, in a goroutine in which a panic
// ends the program. Here a message is bounded before it is decoded, and what
// is wrong with it ends the channel, or only the request that it answers.
type channel struct {
	conn     net.Conn
	policy   string // URI
	mode     ua.MessageSecurityMode
	own      *identity         // nil without security
	server   *x509.Certificate // nil without security
	lifetime time.Duration     // of a token, that is asked for
	most     capacity

	sending chan struct{} // taken over the numbers of chunks, which are in the order of the wire
	number  uint32
	request uint32

	mutex   sync.Mutex
	id      uint32
	tokens  []*token // the newest last
	opening *opening
	waiting map[uint32]*waiting
	held    int    // bytes in waiting
	heard   uint32 // number of the last chunk
	hears   bool   // there was one
	why     error  // of done

	done       chan struct{}
	background sync.WaitGroup
}

// capacity is what the other side takes; 0 is any size.
type capacity struct{ chunk, message, chunks int }

// token is the keys that are in use for a while.
type token struct {
	id uint32
	protection
	lifetime time.Duration
	until    time.Time // that the server may still use them
}

// opening is a request for a token.
type opening struct {
	request uint32
	nonce   []byte
	protection
}

// waiting is a request that is not answered.
type waiting struct {
	body   []byte
	answer chan answer
}

type answer struct {
	response ua.Response
	err      error
}

// openChannel connects to a server and agrees on keys; own and server are nil
// where nothing is secured.
func openChannel(ctx context.Context, endpoint string, c *channel) (*channel, error) {
	address, err := url.Parse(endpoint)
	if err != nil {
		return nil, err
	}
	host := address.Host
	if address.Port() == "" {
		host = net.JoinHostPort(address.Hostname(), "4840")
	}
	var dialer net.Dialer
	if c.conn, err = dialer.DialContext(ctx, "tcp", host); err != nil {
		return nil, err
	}
	// What follows keeps the deadline, and ends at once where nobody waits.
	stop := context.AfterFunc(ctx, func() { c.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	reader := bufio.NewReaderSize(c.conn, largestChunk)
	if err := c.greet(reader, endpoint); err != nil {
		c.conn.Close()
		return nil, cmp.Or(ctx.Err(), err)
	}
	c.waiting, c.done, c.sending = make(map[uint32]*waiting), make(chan struct{}), make(chan struct{}, 1)
	c.background.Go(func() { c.end(c.receive(reader)) })
	if err := c.renew(ctx, ua.SecurityTokenRequestTypeIssue); err != nil {
		c.close()
		return nil, err
	}
	c.background.Go(c.renewals)
	return c, nil
}

// greet tells how large messages may be.
func (c *channel) greet(reader io.Reader, endpoint string) error {
	hello := ua.NewBuffer([]byte("HELF\x00\x00\x00\x00"))
	for _, n := range []uint32{0, largestChunk, largestChunk, largestMessage, 0} {
		hello.WriteUint32(n)
	}
	hello.WriteString(endpoint)
	b := hello.Bytes()
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)))
	if _, err := c.conn.Write(b); err != nil {
		return err
	}
	chunk, err := readChunk(reader, nil)
	if err != nil {
		return err
	}
	if string(chunk[:4]) != "ACKF" || len(chunk) < 28 {
		return fmt.Errorf("the server answered a greeting with %q", chunk[:4])
	}
	limit := func(i int) int { return int(min(binary.LittleEndian.Uint32(chunk[i:]), math.MaxInt32)) }
	c.most = capacity{chunk: min(limit(12), largestChunk), message: limit(20), chunks: limit(24)}
	if c.most.chunk < smallestChunk {
		return fmt.Errorf("the server takes chunks of %d bytes, at least %d are due", c.most.chunk, smallestChunk)
	}
	return nil
}

// readChunk reads a chunk into a buffer that is used again; what the server
// says instead, that it ends the connection, is an error.
func readChunk(reader io.Reader, buffer []byte) ([]byte, error) {
	if buffer == nil {
		buffer = make([]byte, largestChunk)
	}
	if _, err := io.ReadFull(reader, buffer[:8]); err != nil {
		return nil, err
	}
	size := binary.LittleEndian.Uint32(buffer[4:])
	if size < 8 || size > largestChunk {
		return nil, fmt.Errorf("a chunk of %d bytes", size)
	}
	if _, err := io.ReadFull(reader, buffer[8:size]); err != nil {
		return nil, err
	}
	chunk := buffer[:size]
	if string(chunk[:3]) == "ERR" && size >= 12 {
		return nil, fmt.Errorf("the server ended the connection: %s", statusName(ua.StatusCode(binary.LittleEndian.Uint32(chunk[8:]))))
	}
	return chunk, nil
}

func (c *channel) secured() bool { return c.mode != ua.MessageSecurityModeNone }

// asymmetric is how keys are agreed on.
func (c *channel) asymmetric() (protection, error) {
	if !c.secured() {
		algorithm, err := uapolicy.Asymmetric(c.policy, nil, nil)
		return protection{algorithm: algorithm}, err
	}
	algorithm, err := asymmetric(c.policy, c.own.key, c.server)
	return protection{algorithm, true, true}, err
}

// renew agrees on new keys. Nothing else is sent meanwhile.
func (c *channel) renew(ctx context.Context, kind ua.SecurityTokenRequestType) error {
	asymmetric, err := c.asymmetric()
	if err != nil {
		return err
	}
	nonce, err := asymmetric.algorithm.MakeNonce()
	if err != nil {
		return err
	}
	body, err := encodeRequest(ctx, nil, &ua.OpenSecureChannelRequest{RequestType: kind, SecurityMode: c.mode, ClientNonce: nonce, RequestedLifetime: uint32(c.lifetime.Milliseconds())})
	if err != nil {
		return err
	}
	if err := c.hold(ctx); err != nil {
		return err
	}
	defer c.release()
	w, id := c.expect(&opening{nonce: nonce, protection: asymmetric})
	head := ua.NewBuffer([]byte("OPNF\x00\x00\x00\x00"))
	head.WriteUint32(c.id)
	head.WriteString(c.policy)
	if c.secured() {
		head.WriteByteString(c.own.cert.Raw)
		head.WriteByteString(uapolicy.Thumbprint(c.server.Raw))
	} else {
		head.WriteByteString(nil)
		head.WriteByteString(nil)
	}
	if err := c.write(ctx, asymmetric, head.Bytes(), id, body); err != nil {
		return err
	}
	_, err = c.wait(ctx, w, id)
	return err
}

// hold waits until nothing else is sent; release lets others send.
func (c *channel) hold(ctx context.Context) error {
	select {
	case c.sending <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *channel) release() { <-c.sending }

// fastestRenewal is how soon keys are renewed, however short their time is.
const fastestRenewal = 500 * time.Millisecond

// renewals renews the keys when three quarters of their time are over.
func (c *channel) renewals() {
	for {
		c.mutex.Lock()
		every := max(c.tokens[len(c.tokens)-1].lifetime*3/4, fastestRenewal)
		c.mutex.Unlock()
		select {
		case <-c.done:
			return
		case <-time.After(every):
		}
		ctx, cancel := context.WithTimeout(context.Background(), connectTime)
		err := c.renew(ctx, ua.SecurityTokenRequestTypeRenew)
		cancel()
		if err != nil {
			c.end(fmt.Errorf("renew the channel's keys: %w", words(err)))
			return
		}
	}
}

// expect makes room for an answer; sending is held.
func (c *channel) expect(o *opening) (*waiting, uint32) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.request++; c.request == 0 {
		c.request = 1
	}
	if o != nil {
		o.request = c.request
		c.opening = o
	}
	w := &waiting{answer: make(chan answer, 1)}
	c.waiting[c.request] = w
	return w, c.request
}

// encodeRequest makes the body of a message.
func encodeRequest(ctx context.Context, session *ua.NodeID, request ua.Request) ([]byte, error) {
	if session == nil {
		session = ua.NewTwoByteNodeID(0)
	}
	hint := publishTime
	if deadline, ok := ctx.Deadline(); ok {
		hint = min(hint, time.Until(deadline))
	}
	request.SetHeader(&ua.RequestHeader{AuthenticationToken: session, Timestamp: time.Now(), TimeoutHint: uint32(max(hint.Milliseconds(), 1))})
	body := ua.NewBuffer(nil)
	body.WriteStruct(ua.NewFourByteExpandedNodeID(0, ua.ServiceTypeID(request)))
	body.WriteStruct(request)
	return body.Bytes(), body.Error()
}

// send sends a request and waits for the answer. The error is a StatusCode of
// the server, the context's, or that of a channel that is over.
func (c *channel) send(ctx context.Context, session *ua.NodeID, request ua.Request) (ua.Response, error) {
	body, err := encodeRequest(ctx, session, request)
	if err != nil {
		return nil, err
	}
	if c.most.message > 0 && len(body) > c.most.message {
		return nil, errTooLarge
	}
	w, id, err := c.post(ctx, body)
	if err != nil {
		return nil, err
	}
	return c.wait(ctx, w, id)
}

func (c *channel) post(ctx context.Context, body []byte) (*waiting, uint32, error) {
	if err := c.hold(ctx); err != nil {
		return nil, 0, err
	}
	defer c.release()
	c.mutex.Lock()
	key, channel := c.tokens[len(c.tokens)-1], c.id
	c.mutex.Unlock()
	head := make([]byte, plainHeader+4)
	binary.LittleEndian.PutUint32(head[8:], channel)
	binary.LittleEndian.PutUint32(head[12:], key.id)
	if room := key.room(c.most.chunk, len(head)); c.most.chunks > 0 && len(body) > room*c.most.chunks {
		return nil, 0, errTooLarge
	}
	w, id := c.expect(nil)
	copy(head, "MSGF")
	return w, id, c.write(ctx, key.protection, head, id, body)
}

// write sends the chunks of a message; sending is held.
func (c *channel) write(ctx context.Context, p protection, head []byte, request uint32, body []byte) error {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(connectTime)
	}
	c.conn.SetWriteDeadline(deadline)
	room := p.room(c.most.chunk, len(head))
	for more := true; more; {
		part := body[:min(room, len(body))]
		body = body[len(part):]
		if more = len(body) > 0; more {
			head[3] = 'C'
		} else {
			head[3] = 'F'
		}
		if c.number++; c.number > math.MaxUint32-1024 {
			c.number = 1
		}
		rest := make([]byte, sequenceHeader, sequenceHeader+len(part))
		binary.LittleEndian.PutUint32(rest, c.number)
		binary.LittleEndian.PutUint32(rest[4:], request)
		chunk, err := p.seal(head, append(rest, part...))
		if err == nil {
			_, err = c.conn.Write(chunk)
		}
		if err != nil {
			c.forget(request)
			return c.end(err) // half a message may be out
		}
	}
	return nil
}

// wait waits for the answer to a request.
func (c *channel) wait(ctx context.Context, w *waiting, request uint32) (ua.Response, error) {
	select {
	case a := <-w.answer:
		return a.response, a.err
	case <-ctx.Done():
		c.forget(request)
		return nil, ctx.Err()
	case <-c.done:
		select {
		case a := <-w.answer:
			return a.response, a.err
		default:
			return nil, c.why
		}
	}
}

// forget drops a request that nobody waits for, and gives it.
func (c *channel) forget(request uint32) *waiting {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	w := c.waiting[request]
	if w != nil {
		c.held -= len(w.body)
		delete(c.waiting, request)
	}
	return w
}

// receive takes chunks until the connection is over, and says why.
func (c *channel) receive(reader io.Reader) error {
	buffer := make([]byte, largestChunk)
	for {
		chunk, err := readChunk(reader, buffer)
		if err != nil {
			return err
		}
		if err := c.take(chunk); err != nil && err != io.EOF {
			return fmt.Errorf("read a message of the server: %w", err)
		} else if err != nil {
			return err
		}
	}
}

// take takes a chunk.
func (c *channel) take(chunk []byte) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	var rest []byte
	switch string(chunk[:3]) {
	case "MSG":
		rest, err = c.unlock(chunk)
	case "OPN":
		rest, err = c.unlockOpening(chunk)
	case "CLO":
		return io.EOF
	default:
		err = fmt.Errorf("a message of type %q", chunk[:3])
	}
	if err != nil {
		return err
	}
	number, request := binary.LittleEndian.Uint32(rest), binary.LittleEndian.Uint32(rest[4:])
	again := c.heard > math.MaxUint32-1024 && number < 1024 // Part 6, 6.7.2.4: the numbers begin again
	if c.secured() && c.hears && number != c.heard+1 && !again {
		return errors.New("a message of the server is missing, or came again")
	}
	c.heard, c.hears = number, true
	return c.gather(chunk[3], string(chunk[:3]) == "OPN", request, rest[sequenceHeader:])
}

// gather puts the chunks of a message together.
func (c *channel) gather(kind byte, opens bool, request uint32, part []byte) error {
	c.mutex.Lock()
	w := c.waiting[request]
	if w == nil {
		c.mutex.Unlock()
		return nil // given up
	}
	if c.opening != nil && c.opening.request == request != opens {
		c.mutex.Unlock()
		return errUnverified
	}
	fits := c.held+len(part) <= largestMessage
	if fits {
		w.body = append(w.body, part...)
		c.held += len(part)
	}
	c.mutex.Unlock()
	switch {
	case kind == 'A' && len(part) >= 4:
		c.give(request, nil, fmt.Errorf("%w: it was broken off: %s", errUnreadable, statusName(ua.StatusCode(binary.LittleEndian.Uint32(part)))))
		return nil
	case !fits:
		c.give(request, nil, fmt.Errorf("%w: it has more than %d MiB", errUnreadable, largestMessage>>20))
		return nil
	case kind == 'C':
		return nil
	}
	response, err := decodeAnswer(w.body)
	if err == nil {
		if result := response.Header().ServiceResult; result>>30 >= 2 {
			err = result
		}
	}
	if err == nil && opens {
		err = c.adopt(response)
	}
	c.give(request, response, err)
	return nil
}

// give hands an answer to who waits for it.
func (c *channel) give(request uint32, response ua.Response, err error) {
	if w := c.forget(request); w != nil {
		w.answer <- answer{response, err}
	}
}

// unlock verifies a chunk of a message.
func (c *channel) unlock(chunk []byte) ([]byte, error) {
	const head = plainHeader + 4
	if len(chunk) < head {
		return nil, errShort
	}
	used := binary.LittleEndian.Uint32(chunk[plainHeader:])
	c.mutex.Lock()
	var key *token
	for _, t := range c.tokens {
		if t.id == used && time.Now().Before(t.until) {
			key = t
		}
	}
	id := c.id
	c.mutex.Unlock()
	if key == nil || binary.LittleEndian.Uint32(chunk[8:]) != id {
		return nil, errUnverified
	}
	return key.unseal(chunk, head)
}

// unlockOpening verifies the message that brings new keys: it must be the
// known server's, who alone can read what it answers.
func (c *channel) unlockOpening(chunk []byte) ([]byte, error) {
	b := &bounds{rest: chunk}
	b.take(plainHeader)
	text := func() []byte {
		start := b.rest
		b.text()
		if b.err != nil || len(start)-len(b.rest) < 4 {
			return nil
		}
		return start[4 : len(start)-len(b.rest)]
	}
	policy, certificate := text(), text()
	text() // the thumbprint of ours
	if b.err != nil {
		return nil, b.err
	}
	c.mutex.Lock()
	o := c.opening
	c.mutex.Unlock()
	if o == nil || string(policy) != c.policy || chunk[3] != 'F' {
		return nil, errUnverified
	}
	if c.secured() {
		shown, err := parseCertificate(certificate)
		if err != nil || !bytes.Equal(shown.Raw, c.server.Raw) {
			return nil, errUnverified
		}
	}
	return o.unseal(chunk, len(chunk)-len(b.rest))
}

// oldKeys is how long keys are good after their time, at least: Part 6, 6.7.4,
// gives them a quarter of it, which is short where that is.
const oldKeys = 10 * time.Second

// adopt takes over new keys. A server uses older ones until it hears from us
// with the new, so some of them are kept.
func (c *channel) adopt(response ua.Response) error {
	r, ok := response.(*ua.OpenSecureChannelResponse)
	if !ok {
		return fmt.Errorf("the server answered %T", response)
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	o := c.opening
	c.opening = nil
	if len(r.ServerNonce) < o.algorithm.NonceLength() {
		return errors.New("the server's share of the keys is too short")
	}
	symmetric, err := uapolicy.Symmetric(c.policy, o.nonce, r.ServerNonce)
	if err != nil {
		return err
	}
	lifetime := time.Duration(r.SecurityToken.RevisedLifetime) * time.Millisecond
	if lifetime <= 0 || lifetime > c.lifetime {
		lifetime = c.lifetime
	}
	key := &token{id: r.SecurityToken.TokenID, protection: protection{symmetric, c.secured(), c.mode == ua.MessageSecurityModeSignAndEncrypt}, lifetime: lifetime, until: time.Now().Add(lifetime + max(lifetime/4, oldKeys))}
	c.id = r.SecurityToken.ChannelID
	c.tokens = append(c.tokens[max(0, len(c.tokens)-3):], key)
	return nil
}

// end notes why the channel is over, and lets go of all who wait. It gives what
// was noted first.
func (c *channel) end(err error) error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.why == nil {
		c.why = err
		close(c.done)
	}
	c.conn.Close()
	return c.why
}

// close says goodbye where that is possible, and waits for the end.
func (c *channel) close() {
	select {
	case <-c.done:
	default:
		ctx, cancel := context.WithTimeout(context.Background(), closeTime)
		defer cancel()
		c.goodbye(ctx)
	}
	c.end(net.ErrClosed)
	c.background.Wait()
}

func (c *channel) goodbye(ctx context.Context) {
	body, err := encodeRequest(ctx, nil, &ua.CloseSecureChannelRequest{})
	if err != nil {
		return
	}
	select {
	case c.sending <- struct{}{}:
		defer c.release()
	default:
		return
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if len(c.tokens) == 0 {
		return
	}
	key := c.tokens[len(c.tokens)-1]
	head := binary.LittleEndian.AppendUint32([]byte("CLOF\x00\x00\x00\x00"), c.id)
	head = binary.LittleEndian.AppendUint32(head, key.id)
	c.request++
	c.conn.SetWriteDeadline(time.Now().Add(closeTime))
	rest := binary.LittleEndian.AppendUint32(nil, c.number+1)
	rest = binary.LittleEndian.AppendUint32(rest, c.request)
	if chunk, err := key.seal(head, append(rest, body...)); err == nil {
		_, _ = c.conn.Write(chunk)
	}
}
