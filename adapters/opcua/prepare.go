package opcua

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
)

// limits are how many operations the server takes in one request.
type limits struct {
	read, write, call, browse, translate, monitor int
}

// mostOperations are in one request where the server allows more.
const mostOperations = 1000

// prepare asks the server about itself and finds the nodes of all points.
func (s *session) prepare(ctx context.Context) error {
	s.limits = limits{read: 10} // what is asked for here; even a small server takes it
	asked := []uint32{
		id.Server_NamespaceArray, id.Server_ServerStatus_CurrentTime,
		id.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead, id.Server_ServerCapabilities_OperationLimits_MaxNodesPerWrite,
		id.Server_ServerCapabilities_OperationLimits_MaxNodesPerMethodCall, id.Server_ServerCapabilities_OperationLimits_MaxNodesPerBrowse,
		id.Server_ServerCapabilities_OperationLimits_MaxNodesPerTranslateBrowsePathsToNodeIDs, id.Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall,
	}
	reads := make([]*ua.ReadValueID, len(asked))
	for i, node := range asked {
		reads[i] = readOf(ua.NewNumericNodeID(0, node), ua.AttributeIDValue, "")
	}
	values, err := s.readAll(ctx, reads)
	if err != nil {
		return fmt.Errorf("ask %s about itself: %w", s.bus.Endpoint, words(err))
	}
	s.namespaces, _ = values[0].Value.Value().([]string)
	if now, ok := values[1].Value.Value().(time.Time); ok {
		s.offset = time.Since(now)
	}
	for i, limit := range []*int{&s.limits.read, &s.limits.write, &s.limits.call, &s.limits.browse, &s.limits.translate, &s.limits.monitor} {
		*limit = mostOperations
		if most, ok := values[i+2].Value.Value().(uint32); ok && most > 0 {
			*limit = min(mostOperations, int(most))
		}
	}
	return s.resolve(ctx)
}

// readNamespaces asks anew which namespaces the server has.
func (s *session) readNamespaces(ctx context.Context) error {
	values, err := s.read(ctx, []*ua.ReadValueID{readOf(ua.NewNumericNodeID(0, id.Server_NamespaceArray), ua.AttributeIDValue, "")})
	if err != nil {
		return fmt.Errorf("ask for the namespaces: %w", words(err))
	}
	if namespaces, ok := values[0].Value.Value().([]string); ok {
		s.finding.Lock()
		defer s.finding.Unlock()
		s.namespaces = namespaces
	}
	return nil
}

// readOf is one value or other attribute to read.
func readOf(node *ua.NodeID, attribute ua.AttributeID, elements string) *ua.ReadValueID {
	return &ua.ReadValueID{NodeID: node, AttributeID: attribute, IndexRange: elements, DataEncoding: &ua.QualifiedName{}}
}

// read makes one request.
func (s *session) read(ctx context.Context, nodes []*ua.ReadValueID) ([]*ua.DataValue, error) {
	answer, err := ask[ua.ReadResponse](ctx, s, &ua.ReadRequest{TimestampsToReturn: ua.TimestampsToReturnBoth, NodesToRead: nodes})
	if err != nil {
		return nil, err
	}
	return complete(answer.Results, len(nodes))
}

// readAll reads in as many requests as it takes.
func (s *session) readAll(ctx context.Context, nodes []*ua.ReadValueID) ([]*ua.DataValue, error) {
	limit := s.readLimit()
	return inChunks(nodes, &limit, func(chunk []*ua.ReadValueID) ([]*ua.DataValue, error) { return s.read(ctx, chunk) })
}

// readLimit is how many nodes go into one Read request.
func (s *session) readLimit() int {
	s.finding.RLock()
	defer s.finding.RUnlock()
	return s.limits.read
}

// inChunks divides operations into requests, smaller ones where the server
// says that they are too large.
func inChunks[Q, R any](all []Q, limit *int, request func([]Q) ([]R, error)) ([]R, error) {
	var results []R
	for len(all) > 0 {
		n := min(len(all), *limit)
		some, err := request(all[:n])
		if tooMuch(err) && n > 1 {
			*limit = n / 2
			continue
		}
		if err != nil {
			return nil, err
		}
		results = append(results, some...)
		all = all[n:]
	}
	return results, nil
}

// complete refuses an answer with a result too few or too many, or one missing.
func complete[R any](results []*R, asked int) ([]*R, error) {
	if len(results) != asked {
		return nil, fmt.Errorf("the server gave %d results for %d operations", len(results), asked)
	}
	for _, r := range results {
		if r == nil {
			return nil, errors.New("the server left a result out")
		}
	}
	return results, nil
}
