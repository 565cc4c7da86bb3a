package main

import (
	"fmt"
	"reflect"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// check returns what does not fit together.
func check(objects []runtime.Object) (problems []string) {
	s := set{defined: make(map[string]bool)}
	for _, o := range objects {
		s.add(o)
	}
	for _, o := range objects {
		s.check(o)
	}
	return s.problems
}

type set struct {
	defined  map[string]bool // "Kind namespace/name"
	pods     []pod
	services []*core.Service
	problems []string
}

// pod is what is made from a template.
type pod struct {
	namespace string
	labels    labels.Set
	ports     map[string]core.Protocol
}

func key(kind, namespace, name string) string { return fmt.Sprintf("%s %s/%s", kind, namespace, name) }

func name(o runtime.Object) string {
	m := o.(meta.Object)
	return key(o.GetObjectKind().GroupVersionKind().Kind, m.GetNamespace(), m.GetName())
}

func (s *set) add(o runtime.Object) {
	if s.defined[name(o)] {
		s.problem(o, "is there twice")
	}
	s.defined[name(o)] = true
	switch o := o.(type) {
	case *apps.Deployment:
		p := pod{namespace: o.Namespace, labels: o.Spec.Template.Labels, ports: make(map[string]core.Protocol)}
		for _, c := range o.Spec.Template.Spec.Containers {
			for _, port := range c.Ports {
				p.ports[port.Name] = port.Protocol
			}
		}
		s.pods = append(s.pods, p)
	case *core.Service:
		s.services = append(s.services, o)
	}
}

func (s *set) problem(o runtime.Object, format string, args ...any) {
	s.problems = append(s.problems, name(o)+": "+fmt.Sprintf(format, args...))
}

func (s *set) check(o runtime.Object) {
	if namespace := o.(meta.Object).GetNamespace(); namespace != "" {
		s.need(o, "Namespace", "", namespace)
	} else if _, ok := o.(*core.Namespace); !ok {
		s.problem(o, "has no namespace")
	}
	switch o := o.(type) {
	case *core.Namespace, *core.ServiceAccount, *core.ConfigMap:
	case *apps.Deployment:
		s.checkDeployment(o)
	case *core.Service:
		pods := s.selected(o, meta.SetAsLabelSelector(o.Spec.Selector))
		for _, port := range o.Spec.Ports {
			s.checkPort(o, pods, port.TargetPort, port.Protocol)
		}
	case *policy.PodDisruptionBudget:
		s.selected(o, o.Spec.Selector)
	case *networking.NetworkPolicy:
		pods := s.selected(o, &o.Spec.PodSelector)
		for _, rule := range o.Spec.Ingress {
			for _, port := range rule.Ports {
				s.checkPort(o, pods, *port.Port, *port.Protocol)
			}
		}
	case *monitoring.ServiceMonitor:
		s.checkMonitor(o)
	default:
		s.problem(o, "is of a kind that is not checked")
	}
}

// need notes that an object refers to another one.
func (s *set) need(o runtime.Object, kind, namespace, name string) {
	if !s.defined[key(kind, namespace, name)] {
		s.problem(o, "refers to %s, which no document defines", key(kind, namespace, name))
	}
}

func (s *set) checkDeployment(d *apps.Deployment) {
	template := d.Spec.Template
	if d.Spec.Selector == nil || !reflect.DeepEqual(d.Spec.Selector.MatchLabels, template.Labels) {
		s.problem(d, "its selector differs from the labels %v of its pods", template.Labels)
	}
	s.need(d, "ServiceAccount", d.Namespace, template.Spec.ServiceAccountName)
	volumes := make(map[string]core.Volume)
	for _, v := range template.Spec.Volumes {
		volumes[v.Name] = v
		if v.ConfigMap != nil {
			s.need(d, "ConfigMap", d.Namespace, v.ConfigMap.Name)
		}
	}
	for _, c := range template.Spec.Containers {
		for _, m := range c.VolumeMounts {
			v, ok := volumes[m.Name]
			if !ok {
				s.problem(d, "container %s mounts %q, which is no volume", c.Name, m.Name)
			}
			if v.ConfigMap != nil && m.SubPath != "" {
				s.problem(d, "container %s never sees a change of ConfigMap %s, because of subPath", c.Name, v.ConfigMap.Name)
			}
		}
		for _, probe := range []*core.Probe{c.LivenessProbe, c.ReadinessProbe} {
			if probe == nil || probe.HTTPGet == nil {
				s.problem(d, "container %s lacks a probe over HTTP", c.Name)
				continue
			}
			s.checkPort(d, s.selected(d, d.Spec.Selector), probe.HTTPGet.Port, core.ProtocolTCP)
		}
	}
}

// selected returns the pods that a selector finds; there has to be one.
func (s *set) selected(o runtime.Object, selector *meta.LabelSelector) (pods []pod) {
	l, err := meta.LabelSelectorAsSelector(selector)
	if err != nil {
		s.problem(o, "%v", err)
		return nil
	}
	for _, p := range s.pods {
		if p.namespace == o.(meta.Object).GetNamespace() && l.Matches(p.labels) {
			pods = append(pods, p)
		}
	}
	if len(pods) == 0 {
		s.problem(o, "the selector %q finds no pod", l)
	}
	return pods
}

// checkPort tells whether every pod has a port of that name.
func (s *set) checkPort(o runtime.Object, pods []pod, port intstr.IntOrString, protocol core.Protocol) {
	for _, p := range pods {
		if p.ports[port.StrVal] != protocol {
			s.problem(o, "the pods have no port with the name %q and protocol %s", port.String(), protocol)
		}
	}
}

func (s *set) checkMonitor(m *monitoring.ServiceMonitor) {
	l, err := meta.LabelSelectorAsSelector(&m.Spec.Selector)
	if err != nil {
		s.problem(m, "%v", err)
		return
	}
	ports := make(map[string]bool)
	for _, service := range s.services {
		if service.Namespace == m.Namespace && l.Matches(labels.Set(service.Labels)) {
			for _, port := range service.Spec.Ports {
				ports[port.Name] = true
			}
		}
	}
	for _, e := range m.Spec.Endpoints {
		if !ports[e.Port] {
			s.problem(m, "no service that it selects has a port with the name %q", e.Port)
		}
	}
}
