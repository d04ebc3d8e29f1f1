--- NAME: one sentence about what it does and why. What it needs before it, and what it adds to the event.
return {
  kind = "transform",
  api = 1,
  summary = "Names the team of each call, from a header.",
  settings = {
    header = { type = "string", min = 1, default = "x-team", doc = "the request header with the team's name" },
    required = { type = "boolean", default = false, doc = "whether calls without it are dropped" },
  },
  -- Called once for each use in a pipeline, with the checked settings. State belongs in here.
  new = function(settings)
    local header = settings.header:lower()
    -- Called for each event: returns it, another table, a list of tables, or nil to drop it.
    return function(event)
      event.team = event.request_headers[header]
      if not event.team and settings.required then return nil end
      return event
    end
  end,
}
