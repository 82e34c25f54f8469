// Command kubeletoptions writes what upstream's kubelet knows of flags, configuration fields, defaults and feature
// gates, as the data that Coracle's own tables are tested against.
//
//	go run ./kubeletoptions ../../../crates/coracle/upstream
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"strings"

	"github.com/spf13/pflag"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	cliflag "k8s.io/component-base/cli/flag"
	logsapi "k8s.io/component-base/logs/api/v1"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/features"
	_ "k8s.io/component-base/zpages/features"
	"k8s.io/kubelet/config/v1beta1"
	"k8s.io/kubernetes/cmd/kubelet/app/options"
	_ "k8s.io/kubernetes/pkg/features"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
	"k8s.io/kubernetes/pkg/kubelet/apis/config/scheme"
	conversion "k8s.io/kubernetes/pkg/kubelet/apis/config/v1beta1"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: kubeletoptions DIRECTORY")
		os.Exit(2)
	}
	must(logsapi.AddFeatureGates(utilfeature.DefaultMutableFeatureGate))
	for name, lines := range map[string][]string{
		"flags.txt":         flags(),
		"fields.txt":        fields(reflect.TypeFor[v1beta1.KubeletConfiguration](), ""),
		"defaults.json":     defaults(),
		"feature_gates.txt": featureGates(),
	} {
		text := strings.Join(lines, "\n") + "\n"
		must(os.WriteFile(filepath.Join(os.Args[1], name), []byte(text), 0o644))
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// flags lists name, type, field ("-" for none), whether it may stand without a value, and default, divided by tabs.
func flags() []string {
	var lines []string
	set, base := flagSet()
	set.VisitAll(func(f *pflag.Flag) {
		form := "value"
		if f.NoOptDefVal != "" {
			form = "switch"
		}
		lines = append(lines, strings.Join([]string{f.Name, f.Value.Type(), fieldOf(f.Name, base), form, f.DefValue}, "\t"))
	})
	return lines
}

func flagSet() (*pflag.FlagSet, *kubeletconfig.KubeletConfiguration) {
	set := pflag.NewFlagSet("kubelet", pflag.ContinueOnError)
	set.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
	set.SetOutput(io.Discard)
	config, err := options.NewKubeletConfiguration()
	must(err)
	options.NewKubeletFlags().AddFlags(set)
	options.AddKubeletConfigFlags(set, config)
	options.AddGlobalFlags(set)
	return set, config
}

// fieldOf finds the field that a flag sets, by setting it to values until one changes the configuration.
func fieldOf(name string, base *kubeletconfig.KubeletConfiguration) string {
	samples := []string{
		"true", "false", "17", "17s", "a=b", "a<1", "a:b", "AllAlpha=true", "1.2.3.4", "cpu=1", "a=b:NoSchedule",
		"0:memory=1Gi", "a=1", "zzz", "100Mi",
	}
	for _, sample := range samples {
		set, config := flagSet()
		if set.Set(name, sample) != nil {
			continue
		}
		if path := firstDifference("", versioned(base), versioned(config)); path != "" {
			return path
		}
	}
	return "-"
}

func versioned(config *kubeletconfig.KubeletConfiguration) any {
	external := &v1beta1.KubeletConfiguration{}
	must(conversion.Convert_config_KubeletConfiguration_To_v1beta1_KubeletConfiguration(config, external, nil))
	data, err := json.Marshal(external)
	must(err)
	var value any
	must(json.Unmarshal(data, &value))
	return value
}

func firstDifference(path string, a, b any) string {
	left, leftIsMap := a.(map[string]any)
	right, rightIsMap := b.(map[string]any)
	if !leftIsMap || !rightIsMap {
		if reflect.DeepEqual(a, b) {
			return ""
		}
		return strings.TrimPrefix(path, ".")
	}
	for _, side := range []map[string]any{left, right} {
		for name := range side {
			if found := firstDifference(path+"."+name, left[name], right[name]); found != "" {
				return found
			}
		}
	}
	return ""
}

// fields lists the path and the Go type of every leaf, divided by a tab.
func fields(object reflect.Type, prefix string) []string {
	var lines []string
	for i := range object.NumField() {
		field := object.Field(i)
		name := strings.Split(field.Tag.Get("json"), ",")[0]
		inner := field.Type
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		switch {
		case field.Anonymous:
			lines = append(lines, fields(inner, prefix)...)
		case inner.Kind() == reflect.Struct && !isLeaf(inner):
			lines = append(lines, fields(inner, prefix+name+".")...)
		default:
			lines = append(lines, prefix+name+"\t"+field.Type.String())
		}
	}
	return lines
}

func isLeaf(t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]())
}

func defaults() []string {
	kubeletScheme, _, err := scheme.NewSchemeAndCodecs()
	must(err)
	config := &v1beta1.KubeletConfiguration{}
	config.APIVersion, config.Kind = v1beta1.SchemeGroupVersion.String(), "KubeletConfiguration"
	kubeletScheme.Default(config)
	data, err := json.MarshalIndent(config, "", "  ")
	must(err)
	return []string{string(data)}
}

// featureGates lists name and default, and "locked" where no other value is allowed.
func featureGates() []string {
	var lines []string
	for name, spec := range utilfeature.DefaultMutableFeatureGate.GetAll() {
		line := fmt.Sprintf("%s %t", name, spec.Default)
		if spec.LockToDefault {
			line += " locked"
		}
		lines = append(lines, line)
	}
	sort.Strings(lines)
	return lines
}
