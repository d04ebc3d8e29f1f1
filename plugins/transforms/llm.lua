--- Adds `llm`: what was asked of which model, the answer put together from its stream, and what it cost.
local llm = require "llmproxy.llm"

return {
  kind = "transform",
  api = 1,
  summary = "Understands the providers' formats and adds the object llm; other events pass unchanged.",
  settings = {
    response = { type = "boolean", default = false, doc = "add the whole response as the provider would have sent it without streaming" },
  },
  new = function(settings)
    return function(event)
      event.llm = llm.describe(event, settings) or event.llm
      return event
    end
  end,
}
