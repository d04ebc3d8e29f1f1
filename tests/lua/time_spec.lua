local time = require "llmproxy.time"

return {
  ["a moment takes any form"] = function(t)
    local moment = time.parse "2025-10-09T08:05:02.75Z"
    t.equal(time.format(moment, "%Y%m%dT%H%M%SZ"), "20251009T080502Z")
    t.equal(time.format(moment, "dt=%F/hour=%H, %A %d %b %Y 100%%"), "dt=2025-10-09/hour=08, Thursday 09 Oct 2025 100%")
    t.equal({ time.format(0, "%j %y %e"), time.format(0, "") }, { "001 70  1", "" })
  end,

  ["a form that is none is refused"] = function(t)
    t.raises("llmproxy.time.format: format: '%Q' is none of %Y", time.format, 0, "%Q")
    t.raises("llmproxy.time.format: format: '%' is none of", time.format, 0, "100%")
    t.raises("llmproxy.time.format: format: expected at most 200 bytes", time.format, 0, ("x"):rep(201))
    t.raises("llmproxy.time.format: t: expected seconds since 1970, before the year 10000", time.format, -1, "%Y")
    t.raises("llmproxy.time.format: format: expected a string, got nothing", time.format, 0)
  end,
}
