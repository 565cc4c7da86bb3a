package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"

	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// apiServer stands in for that of a cluster, as far as CoreDNS asks it: it lists what there is, and tells those who watch of
// every change, from the version on that they name. It does so in JSON, although CoreDNS would rather have protobuf.
type apiServer struct {
	url string

	mu      sync.Mutex
	away    bool          // it answers nobody
	events  []watchEvent  // all that was ever told; the version of each is its place, from 1 on
	changed chan struct{} // closed when there are more
}

// watchEvent is what watchers are told: meta.WatchEvent, whose object is not encoded yet.
type watchEvent struct {
	Type   string `json:"type"` // ADDED, MODIFIED or BOOKMARK
	Object object `json:"object"`
	kind   string
}

// object is anything that the API has, with its name and version.
type object interface{ GetObjectMeta() meta.Object }

// collections are the kinds of objects, by the path of all of them.
var collections = map[string]meta.TypeMeta{
	"/api/v1/namespaces":                       {Kind: "Namespace", APIVersion: "v1"},
	"/api/v1/services":                         {Kind: "Service", APIVersion: "v1"},
	"/apis/discovery.k8s.io/v1/endpointslices": {Kind: "EndpointSlice", APIVersion: "discovery.k8s.io/v1"},
}

// newAPIServer starts one whose cluster is empty.
func newAPIServer(t *testing.T) *apiServer {
	t.Helper()
	a := &apiServer{changed: make(chan struct{})}
	s := httptest.NewServer(a)
	a.url = s.URL
	t.Cleanup(func() {
		s.CloseClientConnections() // a watch ends only with its connection
		s.Close()
	})
	return a
}

// goAway has it answer nobody, or do so again.
func (a *apiServer) goAway(away bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.away = away
}

func (a *apiServer) isAway() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.away
}

// put adds objects, or changes those of the same names.
func (a *apiServer) put(objects ...object) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, o := range objects {
		e := watchEvent{"ADDED", o, ""}
		switch o := o.(type) {
		case *core.Namespace:
			e.kind = "Namespace"
			o.TypeMeta = meta.TypeMeta{Kind: e.kind, APIVersion: "v1"}
		case *core.Service:
			e.kind = "Service"
			o.TypeMeta = meta.TypeMeta{Kind: e.kind, APIVersion: "v1"}
		case *discovery.EndpointSlice:
			e.kind = "EndpointSlice"
			o.TypeMeta = meta.TypeMeta{Kind: e.kind, APIVersion: "discovery.k8s.io/v1"}
		}
		if _, there := a.present(e.kind)[key(o)]; there {
			e.Type = "MODIFIED"
		}
		o.GetObjectMeta().SetResourceVersion(strconv.Itoa(len(a.events) + 1))
		a.events = append(a.events, e)
	}
	close(a.changed)
	a.changed = make(chan struct{})
}

func key(o object) string {
	return o.GetObjectMeta().GetNamespace() + "/" + o.GetObjectMeta().GetName()
}

// present returns the objects of a kind, by their keys. The caller has the lock.
func (a *apiServer) present(kind string) map[string]object {
	all := make(map[string]object)
	for _, e := range a.events {
		if e.kind == kind {
			all[key(e.Object)] = e.Object
		}
	}
	return all
}

// next returns the events of a kind that are newer than a version, the version that is the newest now, and what is closed
// when there is a newer one.
func (a *apiServer) next(kind string, version int) (news []watchEvent, newest int, changed <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range a.events[version:] {
		if e.kind == kind {
			news = append(news, e)
		}
	}
	return news, len(a.events), a.changed
}

// ServeHTTP implements http.Handler.
func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if a.isAway() {
		http.Error(w, "away", http.StatusServiceUnavailable)
		return
	}
	collection, known := collections[r.URL.Path]
	if !known {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	query := r.URL.Query()
	if query.Get("watch") == "" {
		a.list(w, collection)
		return
	}
	version, _ := strconv.Atoi(query.Get("resourceVersion"))
	initial := query.Get("sendInitialEvents") == "true"
	if initial {
		version = 0
	}
	a.watch(w, r, collection, version, initial)
}

// list writes all objects of a collection.
func (a *apiServer) list(w http.ResponseWriter, collection meta.TypeMeta) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var items []object
	for _, o := range a.present(collection.Kind) {
		items = append(items, o)
	}
	json.NewEncoder(w).Encode(map[string]any{
		"kind": collection.Kind + "List", "apiVersion": collection.APIVersion,
		"metadata": meta.ListMeta{ResourceVersion: strconv.Itoa(len(a.events))}, "items": items,
	})
}

// watch writes events until the client goes. If it asked for the initial ones, a bookmark tells where they end.
func (a *apiServer) watch(w http.ResponseWriter, r *http.Request, collection meta.TypeMeta, version int, initial bool) {
	encoder, flush := json.NewEncoder(w), w.(http.Flusher).Flush
	for {
		news, newest, changed := a.next(collection.Kind, version)
		for _, e := range news {
			encoder.Encode(e)
		}
		version = newest
		if initial {
			initial = false
			encoder.Encode(bookmark(collection, version))
		}
		flush()
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

// bookmark says that the initial events are over (KEP-3157, "watch-list").
func bookmark(collection meta.TypeMeta, version int) watchEvent {
	return watchEvent{Type: "BOOKMARK", Object: &meta.PartialObjectMetadata{TypeMeta: collection, ObjectMeta: meta.ObjectMeta{
		ResourceVersion: strconv.Itoa(version),
		Annotations:     map[string]string{meta.InitialEventsAnnotationKey: "true"},
	}}}
}
