--- The classic instrumentation event: seven fields, nothing else.
return {
  kind = "transform",
  api = 1,
  summary = "Turns an event into RequestID, Method, Path, Status, Duration, ResponseHeaders and ResponseBody.",
  settings = {},
  new = function()
    return function(event)
      return {
        RequestID = event.request_id,
        Method = event.method,
        Path = event.path,
        Status = event.status,
        Duration = event.duration_ms,
        ResponseHeaders = event.response_headers or {},
        ResponseBody = event.response_body or "",
      }
    end
  end,
}
