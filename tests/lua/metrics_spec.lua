local metrics = require "llmproxy.metrics"

return {
  ["what cannot be counted raises"] = function(t)
    local counter = metrics.counter("spec_total", "Spec.", { "route" })
    counter:add()
    counter:add(0.5, { route = "x" })
    t.raises("number: expected 0 or more for a counter, got -1", counter.add, counter, -1)
    t.raises("number: expected a number, got nan", counter.add, counter, 0 / 0)
    t.raises("number: expected a number, got string", counter.add, counter, "1")
    t.raises("labels: llm_proxy_plugin_spec_total has no label 'rout'", counter.add, counter, 1, { rout = "x" })
    t.raises("labels: expected a table, got string", counter.add, counter, 1, "x")
    t.raises("a counter has no 'set'", counter.set, counter, 1)
    t.raises("a counter has no 'observe'", counter.observe, counter, 1)
    local histogram = metrics.histogram("spec_seconds", "Spec.")
    histogram:observe(3)
    t.raises("a histogram has no 'add'", histogram.add, histogram, 1)
    local gauge = metrics.gauge("spec", "Spec.")
    gauge:set(1)
    gauge:add(-2.5)
  end,

  ["what cannot be declared raises"] = function(t)
    t.raises("llmproxy.metrics.counter: name: expected a name of letters, digits and _, got a-b", metrics.counter, "a-b", "x")
    t.raises("llmproxy.metrics.gauge: help: expected a string, got nil", metrics.gauge, "a")
    t.raises("llmproxy.metrics.gauge: label_names: expected a list of names, got string", metrics.gauge, "a", "x", "route")
    t.raises("label_names: 'pipeline' cannot be used", metrics.gauge, "a", "x", { "pipeline" })
    t.raises("label_names: 'a' cannot be used", metrics.gauge, "a", "x", { "a", "a" })
    t.raises("llmproxy.metrics.histogram: buckets: expected numbers in ascending order", metrics.histogram, "a", "x", nil, { 2, 1 })
  end,
}
