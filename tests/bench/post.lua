-- wrk: the same POST of 1,200 bytes again and again, and at the end two lines that bench.py reads.
-- luacheck: globals wrk done, read globals io
local start = '{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"'
local finish = '"}]}'

wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer sk-benchmark"
wrk.body = start .. ("a"):rep(1200 - #start - #finish) .. finish

function done(summary, latency)
  local errors = summary.errors
  io.write(("latency %d %d\n"):format(latency:percentile(50), latency:percentile(99)))
  io.write(("result %d %d\n"):format(summary.requests, errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
