// Command manifests checks Kubernetes manifests without a cluster: every document against the types of its kind, and
// that the documents fit one another.
//
//	manifests deploy/kubernetes/*.yaml
//	manifests -types deploy/kubernetes/cluster/*.yaml
//
// With -types only the first: for patches, and for documents whose others are in the cluster already.
//
// A field that its kind does not have, one that is given twice and a value of the wrong type are errors; so is a
// selector that selects nothing, a port without a name behind it, a volume or an account that no document defines, a
// ConfigMap or Secret whose changes never reach the pod, a variable in a Corefile that the pod does not have, and a Secret
// itself: those of the volumes are made by whoever applies the manifests.
package main

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
)

func main() {
	onlyTypes := flag.Bool("types", false, "Check each document by itself, against the type of its kind")
	flag.Parse()
	if flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "usage: manifests [-types] FILE...")
		os.Exit(2)
	}
	var objects []runtime.Object
	for _, name := range flag.Args() {
		more, err := load(name)
		if err != nil {
			fmt.Fprintf(os.Stderr, "manifests: %s: %v\n", name, err)
			os.Exit(1)
		}
		objects = append(objects, more...)
	}
	if *onlyTypes {
		fmt.Printf("%d documents fit their types\n", len(objects))
		return
	}
	if problems := check(objects); len(problems) > 0 {
		for _, p := range problems {
			fmt.Fprintln(os.Stderr, "manifests:", p)
		}
		os.Exit(1)
	}
	fmt.Printf("%d documents fit their types and one another\n", len(objects))
}

func load(name string) ([]runtime.Object, error) {
	content, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return decode(content)
}

// decode reads all documents of a file. It knows the kinds that are used here.
func decode(content []byte) (objects []runtime.Object, err error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		apps.AddToScheme, core.AddToScheme, monitoring.AddToScheme, networking.AddToScheme, policy.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	reader := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(content)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, err
		}
		object, _, err := decoder.Decode(document, nil, nil)
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", len(objects)+1, err)
		}
		objects = append(objects, object)
	}
}
