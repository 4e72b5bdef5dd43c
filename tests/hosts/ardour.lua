-- Ardour without a window: finds both classes, puts each on a track, rolls, saves, loads again.
-- Run by scripts/test-hosts: ardour7-lua ardour.lua, with the folder for the session in NULLSUM_SESSION.

local function check (condition, what)
	if not condition then
		print ("FAILED: " .. what)
		os.exit (1)
	end
	print ("ok: " .. what)
end

AudioEngine:set_backend ("None (Dummy)", "", "")
AudioEngine:set_device_name ("Silence")
local folder = os.getenv ("NULLSUM_SESSION")
local session = create_session (folder, "nullsum", 48000)
check (session, "a session")

local found = {}
for plugin in ARDOUR.LuaAPI.list_plugins ():iter () do
	found[plugin.name] = true
end

for _, name in ipairs ({ "Nullsum", "Nullsum Multi" }) do
	check (found[name], name .. " is listed")
	local tracks = session:new_audio_track (2, 2, nil, 1, name, ARDOUR.PresentationInfo.max_order, ARDOUR.TrackMode.Normal, true)
	local track = tracks:front ()
	local processor = ARDOUR.LuaAPI.new_plugin (session, name, ARDOUR.PluginType.VST3, "")
	check (not processor:isnil (), name .. " is created")
	check (track:add_processor_by_index (processor, 0, nil, true) == 0, name .. " is on a track")
	check (ARDOUR.LuaAPI.set_processor_param (processor, 0, 0.25), name .. " takes a value")
end

session:request_roll (ARDOUR.TransportRequestSource.TRS_UI)
ARDOUR.LuaAPI.usleep (3000000)
for track in session:get_routes ():iter () do
	local processor = track:nth_plugin (0)
	if not processor:isnil () then
		local latency = processor:to_insert ():signal_latency ()
		check (latency > 0, string.format ("%s on a track reports %d samples of latency", processor:display_name (), latency))
	end
end
session:request_stop (false, false, ARDOUR.TransportRequestSource.TRS_UI)
ARDOUR.LuaAPI.usleep (500000)
check (session:save_state ("", false, false, false, false, false) == 0, "the session is saved")
close_session ()
session = load_session (folder, "nullsum")
check (session, "the session is loaded again")
local count = 0
for track in session:get_routes ():iter () do
	local processor = track:nth_plugin (0)
	if not processor:isnil () then
		count = count + 1
		local value = ARDOUR.LuaAPI.get_processor_param (processor, 0)
		check (math.abs (value - 0.25) < 1e-4, string.format ("the value is there again: %f", value))
	end
end
check (count == 2, count .. " plugins are there again")
ARDOUR.LuaAPI.usleep (1000000)
close_session ()
print ("all is well")
