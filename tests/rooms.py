"""The rooms of the package, and who may import whom: a test holds the code to it, another docs/architecture.md."""

ROOMS = """
    cli             everything
    app             report evaluation vision prompts load adaptor
    audit           report evaluation load adaptor
    making          report pipelines prompts steering adaptor
    training.sandbox  training sandbox report evaluation vision prompts load adaptor
    training        publishing report evaluation vision prompts pipelines load hub adaptor families state_dicts
    sandbox         evaluation vision prompts adaptor
    publishing      report convert resolving hub pipelines load adaptor
    report          evaluation adaptor
    evaluation      vision prompts resolving hub load steering adaptor families
    convert         importing load hub adaptor families state_dicts
    load            resolving hub steering adaptor families
    steering        adaptor families
    resolving       importing hub adaptor
    importing       hub adaptor families state_dicts
    vision          hub adaptor state_dicts
    prompts         hub adaptor
    pipelines       hub adaptor families
    hub             state_dicts adaptor
    state_dicts     adaptor
    adaptor         families
    families
"""
"""Who may import whom, from the top of the house down: a room imports only what its line names, besides the ground
floor. Only the command line and what rebuilds the sandbox know it; others find it by its row in `adaptor.bases`.
"""
